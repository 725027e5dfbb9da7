//! Warnings about images that cannot be decoded.

use std::collections::BTreeMap;

use crate::model::vision::PictureError;

/// Counts refused images by reason, so that each reason is one line of the log.
#[derive(Debug, Default)]
pub(crate) struct RefusedImages {
    reasons: BTreeMap<String, Images>,
    first_reason: Option<String>,
}

#[derive(Debug, Default)]
struct Images {
    count: usize,
    first_item: Option<String>,
}

impl RefusedImages {
    /// Returns the result of an image; counts the image, which may belong to an item, where it was refused.
    pub(crate) fn accept<T>(&mut self, image: Result<T, PictureError>, item: Option<&str>) -> Option<T> {
        match image {
            Ok(result) => Some(result),
            Err(why) => {
                let why = why.to_string();
                self.first_reason.get_or_insert_with(|| why.clone());
                let first = || Images { count: 0, first_item: item.map(String::from) };
                self.reasons.entry(why).or_insert_with(first).count += 1;
                None
            }
        }
    }

    /// Warns of the refused images of a SQL function's call over `images` distinct ones.
    pub(crate) fn warn_of_call(&self, function: &str, consequence: &str, images: usize) {
        if let Some(why) = &self.first_reason {
            let count: usize = self.reasons.values().map(|group| group.count).sum();
            tracing::warn!("{function}: {count} of {images} distinct images {consequence}; the first: {why}");
        }
    }

    /// Warns of the refused images of the catalogue.
    pub(crate) fn warn_of_items(&self) {
        for (why, Images { count, first_item }) in &self.reasons {
            let item = first_item.as_deref().unwrap_or("without an id");
            tracing::warn!("ignored {count} images of items: {why} (the first: item {item})");
        }
    }
}
