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

    /// Returns the results of a SQL function's call with distinct images; warns of the refused ones.
    pub(crate) fn accept_call<T>(
        function: &str,
        consequence: &str,
        images: Vec<Result<T, PictureError>>,
    ) -> Vec<Option<T>> {
        let total = images.len();
        let mut refused = Self::default();
        let results = images.into_iter().map(|image| refused.accept(image, None)).collect();
        if let Some(why) = &refused.first_reason {
            let count: usize = refused.reasons.values().map(|group| group.count).sum();
            tracing::warn!("{function}: {count} of {total} distinct images {consequence}; the first: {why}");
        }
        results
    }

    /// Warns of the refused images of the catalogue.
    pub(crate) fn warn_of_items(&self) {
        for (why, Images { count, first_item }) in &self.reasons {
            let item = first_item.as_deref().unwrap_or("without an id");
            tracing::warn!("ignored {count} images of items: {why} (the first: item {item})");
        }
    }
}
