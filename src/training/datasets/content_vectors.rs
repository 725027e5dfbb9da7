//! Content vectors for training: the catalogue's image and video vectors, and vectors of texts and images from the
//! configured encoders.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::training_context::TrainingContext;
use crate::failure::{Failure, Result};
use crate::ids::RunDate;
use crate::lake::stores::Location;
use crate::model::bundle::{BundledImageEncoder, BundledTextEncoder};
use crate::model::contents::{Contents, IMAGE, TEXT};
use crate::score::contents::{self, ContentStore, VectorSink, refresh};
use crate::score::devices;
use crate::score::encoders::{SharedImageEncoder, SharedTextEncoder};

/// The encoders of texts and images, for the bundle's card.
#[derive(Debug, Clone, Default)]
pub(crate) struct ContentEncoderCards {
    pub(crate) text: Option<BundledTextEncoder>,
    pub(crate) image: Option<BundledImageEncoder>,
}

impl TrainingContext<'_> {
    /// Returns the content vectors as of `end`: those of the catalogue, which has no history, and those of the texts as of
    /// `dates`.
    pub(crate) async fn contents(&self, end: RunDate, dates: &[RunDate]) -> Result<(Contents, ContentEncoderCards)> {
        let model = &self.config().model;
        let mut contents = match model.content_inputs {
            true => contents::training_vectors(&self.whole_session(end).await?).await?,
            false => Contents::default(),
        };
        let mut cards = ContentEncoderCards::default();
        if !model.image_encoder.is_empty() {
            let (with_images, card) = self.add_images(contents, end).await?;
            contents = with_images;
            cards.image = Some(card);
        }
        if !model.text_encoder.is_empty() {
            let (with_texts, card) = self.add_texts(contents, end, dates).await?;
            contents = with_texts;
            cards.text = Some(card);
        }
        Ok((contents, cards))
    }

    /// Adds the vectors of the catalogue's images.
    async fn add_images(&self, contents: Contents, end: RunDate) -> Result<(Contents, BundledImageEncoder)> {
        let source = self.config().model.image_encoder.clone();
        let folder = Location::open(&source, &self.config().s3)?;
        let score = &self.config().score;
        let encoder = Arc::new(SharedImageEncoder::open(&folder, devices::choose(score)?, score).await?);
        let hash = encoder.hash.clone();
        let store = ContentStore::new(self.workspace.output()?, [0, encoder.width as i64, 0], ["", &hash, ""])
            .ok_or_else(|| Failure::bug("an image encoder without a width"))?;
        let ctx = self.whole_session(end).await?;
        let known = store.contents().await?;
        let keys = refresh::add_images(&ctx, &encoder, &known, &mut VectorSink::files(&store)).await?.keys;
        let all = store.contents().await?;
        Ok((contents.with(IMAGE, &all, keys), BundledImageEncoder { source, hash }))
    }

    /// Adds the vectors of the texts as of `dates` and `end`.
    async fn add_texts(
        &self,
        contents: Contents,
        end: RunDate,
        dates: &[RunDate],
    ) -> Result<(Contents, BundledTextEncoder)> {
        let model = &self.config().model;
        let folder = Location::open(&model.text_encoder, &self.config().s3)?;
        let device = devices::choose(&self.config().score)?;
        let encoder = SharedTextEncoder::open(&folder, model.text_tokens_max, self.config(), device).await?;
        let encoder = Arc::new(encoder);
        let store = ContentStore::new(self.workspace.output()?, [encoder.width as i64, 0, 0], [&encoder.hash, "", ""])
            .ok_or_else(|| Failure::bug("a text encoder without a width"))?;
        let mut keys = BTreeSet::new();
        for &as_of in dates.iter().chain([&end]) {
            let ctx = self.whole_session(as_of).await?;
            let known = store.contents().await?;
            keys.extend(refresh::add_texts(&ctx, &encoder, &known, &mut VectorSink::files(&store)).await?.keys);
        }
        // Ordered by key and without others, whatever else the store holds.
        let all = store.contents().await?;
        let source = model.text_encoder.clone();
        let hash = encoder.hash.clone();
        let tokens_max = model.text_tokens_max;
        Ok((contents.with(TEXT, &all, keys), BundledTextEncoder { source, hash, tokens_max }))
    }
}
