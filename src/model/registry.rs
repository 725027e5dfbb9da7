//! The registry of models: a folder with one sub-folder per version and one `champion` pointer.
//!
//! `bundle` writes and loads the models of nights, `cards` the models of a table, text or image. They extend [`Registry`]
//! there, so that this file knows no kind of model.

use crate::failure::Result;
use crate::lake::stores::Location;

/// The registry folder: `<output>/models`.
#[derive(Debug, Clone)]
pub struct Registry(pub Location);

impl Registry {
    /// Returns the champion's version, or `None` before the first promotion.
    pub(crate) async fn champion(&self) -> Result<Option<String>> {
        let pointer = self.0.read_if_there("champion").await?;
        Ok(pointer.map(|bytes| String::from_utf8_lossy(&bytes).trim().to_string()))
    }
}
