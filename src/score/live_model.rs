//! A model that answers for one user at a time, without a plan: what the functions of SQL compute, loaded once.

use arrow::array::{ArrayRef, StructArray};
use datafusion::prelude::SessionContext;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::encoders::SharedTextEncoder;
use super::functions::explain_intents::{self, Part};
use super::functions::score_intents;
use super::models::{LakeInputs, Models};
use super::service::explanation::Explanation;
use super::service::item_index::ItemIndex;
use super::service::{ScoringService, as_struct};
use crate::failure::{Failure, Result};
use crate::features::content_key::text_key;
use crate::model::contents::{Contents, TEXT};
use crate::model::latest_items::RecentEvents;

/// An item with its score.
pub(crate) type ScoredItem = (String, f32);

/// The model of a session, with the contents and items of the session's lake.
pub(crate) struct LiveModel {
    pub(crate) version: String,
    items: ItemIndex,
    service: ScoringService,
    encoder: Option<Arc<SharedTextEncoder>>,
}

impl LiveModel {
    /// Loads the configured version, or else the champion, with what its calls read of the session's lake.
    pub(crate) async fn load(models: &Models, ctx: &SessionContext) -> Result<Self> {
        let pinned = models.pin("").await?;
        let inputs = models.inputs(&pinned, LakeInputs::ContentsAndItems, ctx).await?;
        let service = models.service_with_contents(&inputs).await?;
        let encoder = match service.card.text {
            Some(_) => Some(models.text_encoder(&pinned.version).await?),
            None => None,
        };
        Ok(Self { version: pinned.version, items: models.items(&inputs).await?, service, encoder })
    }

    /// Scores users: `features` are structs as `score_intents` takes them; the result has its fields. `texts` are those of events of
    /// now, which are encoded where no vector is known of them, as a night would.
    pub(crate) async fn score(&self, features: &ArrayRef, texts: impl Iterator<Item = String>) -> Result<StructArray> {
        let features = as_struct(features)?;
        let scores = match self.encode(texts).await? {
            Some(contents) => self.service.score_with(features, &contents).await?,
            None => self.service.score(features).await?,
        };
        let scores = score_intents::column(&scores, &self.version, false)?;
        Ok(as_struct(&scores)?.clone())
    }

    /// Encodes texts that no vector is known of; `None` where there is none.
    async fn encode(&self, texts: impl Iterator<Item = String>) -> Result<Option<Contents>> {
        let Some(encoder) = &self.encoder else { return Ok(None) };
        let known = self.service.contents().now();
        let keyed = texts.filter_map(|text| Some((text_key(&text)?, text)));
        let new: BTreeMap<i64, String> = keyed.filter(|(key, _)| !known.has(TEXT, *key)).collect();
        if new.is_empty() {
            return Ok(None);
        }
        let (encoder, dims) = (Arc::clone(encoder), known.dims());
        let encoded = on_a_thread(move || {
            let mut added = Contents::new(dims);
            let texts: Vec<&str> = new.values().map(String::as_str).collect();
            for (key, vector) in new.keys().zip(encoder.encode(&texts)?) {
                added.insert(TEXT, *key, &vector);
            }
            Ok(added)
        });
        encoded.await.map(Some)
    }

    /// Explains a binary target of one user: `features` is one struct as `score_intents` takes it.
    pub(crate) async fn explain(&self, features: &ArrayRef, target: usize) -> Result<(Explanation, Vec<Part>)> {
        explain_intents::explain_one(&self.service, as_struct(features)?, target).await
    }

    /// Returns the item of `known` whose vector is nearest to an item's, and the cosine of the two; `None` where none has a vector.
    pub(crate) fn nearest_of<'a>(&self, item_id: &str, known: impl Iterator<Item = &'a str>) -> Option<(&'a str, f32)> {
        let item = self.items.find(item_id)?;
        let cosines = known.filter_map(|known| Some((known, self.items.cosine(item, self.items.find(known)?))));
        cosines.filter(|(_, cosine)| cosine.is_finite()).max_by(|a, b| a.1.total_cmp(&b.1))
    }

    /// Returns the items of the last events of one user with their weights, as `latest_items` does: `features` is one struct.
    pub(crate) fn latest_items(&self, features: &ArrayRef) -> Result<BTreeMap<String, f64>> {
        let Some(learnt) = &self.service.card.latest_items else { return Ok(BTreeMap::new()) };
        let recent = RecentEvents::from_struct(as_struct(features)?)?;
        Ok(recent.weights(0, learnt).into_iter().map(|(item_id, weight)| (item_id.to_string(), weight)).collect())
    }

    /// Ranks the `k` best items for a taste and the items of the last events, best first, without those to exclude and those out of
    /// stock, as `recommend` does.
    pub(crate) async fn recommend(
        &self,
        taste: Vec<f32>,
        latest: BTreeMap<String, f64>,
        k: usize,
        exclude: HashSet<String>,
        out_of_stock: Arc<HashSet<String>>,
    ) -> Result<Vec<ScoredItem>> {
        let items = self.items.clone();
        on_a_thread(move || {
            let latest = latest.iter().map(|(item_id, weight)| (item_id.as_str(), *weight));
            let left_out = exclude.iter().chain(out_of_stock.iter()).map(String::as_str);
            let user = items.user(latest, left_out.collect());
            let best = items.best_of_one(&taste, &user, k);
            Ok(best.into_iter().map(|(item, score)| (items.ids[item].clone(), score)).collect())
        })
        .await
    }

    /// Ranks the `k` items whose vectors are nearest to an item's, by cosine, without those of `exclude`; `None` for an item that
    /// the model has no vector of.
    pub(crate) async fn related(
        &self,
        item_id: String,
        exclude: Arc<HashSet<String>>,
        k: usize,
    ) -> Result<Option<Vec<ScoredItem>>> {
        let items = self.items.clone();
        on_a_thread(move || {
            let Some(item) = items.find(&item_id) else { return Ok(None) };
            let nearest = items.nearest(item, k, |id| exclude.contains(id));
            Ok(Some(nearest.into_iter().map(|(item, cosine)| (items.ids[item].clone(), cosine)).collect()))
        })
        .await
    }

    /// Returns the score of each item for a taste and the items of the last events, as `recommend` computes it; `None` for items that
    /// the model has no vector of.
    pub(crate) fn item_scores(
        &self,
        taste: &[f32],
        latest: &BTreeMap<String, f64>,
        item_ids: &[String],
    ) -> Vec<Option<f32>> {
        let weight = |item_id: &String| latest.get(item_id).copied().unwrap_or(0.0);
        item_ids.iter().map(|id| Some(self.items.score(taste, self.items.find(id)?, weight(id)))).collect()
    }
}

/// Computes for long where that holds up no other client.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Failure::bug(format!("a model for one user: {e}")))?
}
