//! Turns events into embedded, padded tensors: the input of every behaviour backbone.
//!
//! An event's vector is the sum of the vectors of its parts: type, item, category, the contents of its text, image and
//! video, its position counted from the newest event, and a linear map of its real numbers. Another kind of input is one
//! more summand in [`EventEmbedding`].

use tch::nn::{self, Module};
use tch::{Device, Kind, Tensor};

use super::backbones::PaddedEvents;
use super::contents::{ContentBatch, ContentRows, Contents, MODALITIES, rows_tensor};
use super::embedding::small_embedding;
use super::fusion::Fusion;
use super::inputs::{CATEGORY_BUCKETS, EVENT_REALS, EventInput};
use super::shape::IntentShape;
use crate::failure::Result;

/// Padding, unknown, and the eight event types.
const TYPES: i64 = 10;

/// Events of several users as numbers, padded at the end to the longest history.
#[derive(Debug)]
pub(crate) struct EventBatch {
    /// int64 [4, users, events]: type, item, category, position counted from the newest event.
    ids: Tensor,
    /// float32 [users, events, EVENT_REALS].
    reals: Tensor,
    /// One entry per modality that the network reads, by [users, events].
    contents: Vec<ContentBatch>,
    /// int64 [users].
    pub(crate) lengths: Tensor,
    /// False where all histories are equally long, so that no event is padding.
    has_padding: bool,
}

impl EventBatch {
    /// Builds a batch from one sequence of events per user, oldest first, on `device`. `contents` holds the vectors of the
    /// events' content rows.
    pub(crate) fn from_sequences(
        sequences: &[&[EventInput]],
        events_max: i64,
        contents: &Contents,
        device: Device,
    ) -> Result<Self> {
        let longest = sequences.iter().map(|s| s.len()).max().unwrap_or(0).max(1);
        let cells = sequences.len() * longest;
        let mut ids = vec![0i64; 4 * cells];
        let (types, rest) = ids.split_at_mut(cells);
        let (items, rest) = rest.split_at_mut(cells);
        let (categories, positions) = rest.split_at_mut(cells);
        let mut reals = vec![0f32; cells * EVENT_REALS];
        let mut content_rows = vec![ContentRows::default(); cells];
        let mut lengths = Vec::with_capacity(sequences.len());
        for (i, events) in sequences.iter().enumerate() {
            lengths.push(events.len() as i64);
            for (j, event) in events.iter().enumerate() {
                let at = i * longest + j;
                types[at] = event.event_type + 1;
                items[at] = event.item;
                categories[at] = event.category;
                // Counted from the newest event, so that a longer history does not move the recent ones.
                positions[at] = ((events.len() - j) as i64).min(events_max);
                reals[at * EVENT_REALS..(at + 1) * EVENT_REALS].copy_from_slice(&event.reals);
                content_rows[at] = event.contents;
            }
        }
        let users = sequences.len() as i64;
        let events = longest as i64;
        let modalities = MODALITIES.len() as i64;
        let on_cpu = Self {
            ids: Tensor::f_from_slice(&ids)?.f_view([4, users, events])?,
            reals: Tensor::f_from_slice(&reals)?.f_view([users, events, EVENT_REALS as i64])?,
            contents: contents.gather(&rows_tensor(&content_rows)?.f_view([modalities, users, events])?)?,
            has_padding: lengths.iter().any(|&length| length != events),
            lengths: Tensor::f_from_slice(&lengths)?,
        };
        on_cpu.to(device)
    }

    /// Builds the same batch on the CPU from columns of all users' events, one user after the other. `lengths` is the number
    /// of events of each user.
    pub(crate) fn from_columns(
        columns: EventColumns,
        lengths: &[i64],
        events_max: i64,
        contents: &Contents,
    ) -> Result<Self> {
        let EventColumns { ids: [types, items, categories], contents: content_rows, reals } = columns;
        let longest = lengths.iter().copied().max().unwrap_or(0).max(1);
        let users = lengths.len() as i64;
        let total = lengths.iter().sum::<i64>();
        let has_padding = lengths.iter().any(|&length| length != longest);
        let lengths = Tensor::f_from_slice(lengths)?;
        let positions = Tensor::f_arange(longest, (Kind::Int64, Device::Cpu))?.f_unsqueeze(0)?;
        let padding = positions.f_ge_tensor(&lengths.f_unsqueeze(1)?)?;
        // Padding reads one more event, of zeros, after the last one.
        let starts = lengths.f_cumsum(0, Kind::Int64)? - &lengths;
        let at = (&positions + starts.unsqueeze(1)).f_masked_fill(&padding, total)?.f_view([-1])?;
        let gather = |flat: &Tensor, width: &[i64]| -> Result<Tensor> {
            let with_zeros = Tensor::f_cat(
                &[
                    flat.f_view(&[&[-1], width].concat()[..])?,
                    flat.f_new_zeros([&[1], width].concat(), (flat.kind(), Device::Cpu))?,
                ],
                0,
            )?;
            Ok(with_zeros.f_index_select(0, &at)?.f_view(&[&[users, longest], width].concat()[..])?)
        };
        let from_newest = (lengths.unsqueeze(1) - &positions).clamp_max(events_max).masked_fill(&padding, 0);
        // Type 0 is padding, so unknown is 1.
        let padded_types = (gather(&types, &[])?.to_kind(Kind::Int64) + 1).masked_fill(&padding, 0);
        let ids = [
            padded_types,
            gather(&items, &[])?.to_kind(Kind::Int64),
            gather(&categories, &[])?.to_kind(Kind::Int64),
            from_newest,
        ];
        let modalities = MODALITIES.len() as i64;
        let padded_rows = gather(&content_rows, &[modalities])?.to_kind(Kind::Int64).f_permute([2, 0, 1])?;
        Ok(Self {
            ids: Tensor::f_stack(&ids, 0)?,
            reals: gather(&reals, &[EVENT_REALS as i64])?,
            contents: contents.gather(&padded_rows.f_contiguous()?)?,
            lengths,
            has_padding,
        })
    }

    /// Copies the batch to `device`.
    pub(crate) fn to(&self, device: Device) -> Result<Self> {
        let copy = |of: &Tensor| of.f_to_device(device);
        let contents = self.contents.iter().map(|of| of.to(device)).collect::<Result<_>>()?;
        Ok(Self {
            ids: copy(&self.ids)?,
            reals: copy(&self.reals)?,
            contents,
            lengths: copy(&self.lengths)?,
            has_padding: self.has_padding,
        })
    }

    /// Returns all numbers: ids, reals and the content vectors of each event, lengths.
    #[cfg(test)]
    pub(crate) fn values(&self) -> (Vec<i64>, Vec<f32>, Vec<i64>) {
        let flat = |of: &Tensor| of.contiguous().view([-1]);
        let ints = |of: &Tensor| Vec::try_from(&flat(of)).unwrap();
        let each = |of: &ContentBatch| flat(&of.vectors.index_select(0, &flat(&of.at)));
        let reals = [flat(&self.reals)].into_iter().chain(self.contents.iter().map(each)).collect::<Vec<_>>();
        (ints(&self.ids), Vec::try_from(&Tensor::cat(&reals, 0)).unwrap(), ints(&self.lengths))
    }

    /// bool [users, events]; false for padding.
    fn present(&self) -> Result<Tensor> {
        let positions = Tensor::f_arange(self.ids.size()[2], (Kind::Int64, self.lengths.device()))?;
        Ok(positions.f_unsqueeze(0)?.f_lt_tensor(&self.lengths.unsqueeze(1))?)
    }
}

/// Events of several users as flat columns, on the CPU.
#[derive(Debug)]
pub(crate) struct EventColumns {
    /// Integers [events] each: type, item and category.
    pub(crate) ids: [Tensor; 3],
    /// Integers [events × modalities], row-major.
    pub(crate) contents: Tensor,
    /// float32 [events × EVENT_REALS], row-major.
    pub(crate) reals: Tensor,
}

/// The embedding tables of an event's parts.
#[derive(Debug)]
pub(crate) struct EventEmbedding {
    event_type: nn::Embedding,
    item: nn::Embedding,
    category: nn::Embedding,
    fusion: Fusion,
    position: nn::Embedding,
    reals: nn::Linear,
}

impl EventEmbedding {
    /// Creates initial weights below `path`.
    pub(crate) fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        let d = shape.width;
        let table = |name: &str, rows: i64| small_embedding(path / name, rows, d);
        Self {
            event_type: table("event_type", TYPES),
            item: table("item", shape.item_buckets as i64 + 1),
            category: table("category", CATEGORY_BUCKETS as i64 + 1),
            fusion: Fusion::new(path, shape.fusion, d, shape.content_dims),
            position: table("position", shape.events_max + 1),
            reals: nn::linear(path / "reals", EVENT_REALS as i64, d, Default::default()),
        }
    }

    /// Returns the vectors of the events' items, float32 [users, events, width], and the whole events, padded.
    pub(crate) fn forward(&self, batch: &EventBatch) -> Result<(Tensor, PaddedEvents)> {
        let items = self.item_vectors(&batch.ids.get(1), &batch.ids.get(2), &batch.contents)?;
        let x = self
            .event_type
            .forward(&batch.ids.get(0))
            .f_add_(&items)?
            .f_add_(&self.position.forward(&batch.ids.get(3)))?
            .f_add_(&self.reals.forward(&batch.reals))?;
        let (lengths, present) = (batch.lengths.shallow_clone(), batch.present()?);
        Ok((items, PaddedEvents { x, lengths, present, has_padding: batch.has_padding }))
    }

    /// Returns how many numbers [`Self::content_means`] gives per user; 0 for a fusion of one level.
    pub(crate) fn content_means_width(&self) -> i64 {
        self.fusion.means_width()
    }

    /// Returns each user's mean text, image and video vector, or `None` for a fusion of one level.
    pub(crate) fn content_means(&self, batch: &EventBatch, items: &Tensor) -> Result<Option<Tensor>> {
        self.fusion.means(items, &batch.contents)
    }

    /// Returns the vectors of the event types, float32 [9, width]: unknown, then the eight types.
    pub(crate) fn type_vectors(&self) -> Tensor {
        self.event_type.ws.narrow(0, 1, TYPES - 1)
    }

    /// Returns item vectors from the buckets of item ids and categories and from the items' contents. A rarely seen item is
    /// close to its category and to items with similar contents.
    pub(crate) fn item_vectors(
        &self,
        items: &Tensor,
        categories: &Tensor,
        contents: &[ContentBatch],
    ) -> Result<Tensor> {
        self.fusion.forward(&self.item.forward(items).f_add_(&self.category.forward(categories))?, contents)
    }
}
