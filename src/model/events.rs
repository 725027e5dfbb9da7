//! From events to embedded, padded tensors: the input side of every behaviour backbone.
//!
//! An event's vector is the sum of what is known of it: type, item, category, place from the newest, and a linear map
//! of its real numbers. Another kind of input (a content vector of text or image) is one more summand in [`Embedding`].

use tch::nn::{self, Module};
use tch::{Device, Kind, Tensor};

use super::backbones::Padded;
use super::inputs::{CATEGORY_BUCKETS, EVENT_REALS, EventInput};
use super::intent::IntentShape;
use crate::failure::Result;

/// Small, so that no summand drowns another before training.
pub const SMALL: nn::Init = nn::Init::Randn { mean: 0.0, stdev: 0.05 };

/// Padding, unknown, and the eight types.
const TYPES: i64 = 10;

/// Events of some users as numbers, padded behind to the longest.
#[derive(Debug)]
pub struct EventBatch {
    /// int64 [4, users, events]: type, item, category, place counted from the newest.
    ids: Tensor,
    /// float32 [users, events, EVENT_REALS].
    reals: Tensor,
    /// int64 [users].
    pub lengths: Tensor,
}

impl EventBatch {
    pub fn of(sequences: &[&[EventInput]], events_max: i64, device: Device) -> Result<Self> {
        let longest = sequences.iter().map(|s| s.len()).max().unwrap_or(0).max(1);
        let (b, n) = (sequences.len() as i64, longest as i64);
        let mut ids = vec![0i64; 4 * sequences.len() * longest];
        let (types, rest) = ids.split_at_mut(sequences.len() * longest);
        let (items, rest) = rest.split_at_mut(sequences.len() * longest);
        let (categories, places) = rest.split_at_mut(sequences.len() * longest);
        let mut reals = vec![0f32; sequences.len() * longest * EVENT_REALS];
        let mut lengths = Vec::with_capacity(sequences.len());
        for (i, events) in sequences.iter().enumerate() {
            lengths.push(events.len() as i64);
            for (j, e) in events.iter().enumerate() {
                let at = i * longest + j;
                (types[at], items[at], categories[at]) = (e.event_type + 1, e.item, e.category);
                // Counted from the newest, so that a longer history does not move the recent events.
                places[at] = ((events.len() - j) as i64).min(events_max);
                reals[at * EVENT_REALS..(at + 1) * EVENT_REALS].copy_from_slice(&e.reals);
            }
        }
        Ok(Self {
            ids: Tensor::f_from_slice(&ids)?.f_view([4, b, n])?.f_to_device(device)?,
            reals: Tensor::f_from_slice(&reals)?.f_view([b, n, EVENT_REALS as i64])?.f_to_device(device)?,
            lengths: Tensor::f_from_slice(&lengths)?.f_to_device(device)?,
        })
    }

    /// The same from columns: `ids` are type, item and category, `reals` [events × EVENT_REALS] row-major, of all users one
    /// after the other; `lengths` says how many events are whose. On the CPU.
    pub fn of_flat(ids: [Tensor; 3], reals: &Tensor, lengths: &[i64], events_max: i64) -> Result<Self> {
        let longest = lengths.iter().copied().max().unwrap_or(0).max(1);
        let (b, total) = (lengths.len() as i64, lengths.iter().sum::<i64>());
        let lengths = Tensor::f_from_slice(lengths)?;
        let places = Tensor::f_arange(longest, (Kind::Int64, Device::Cpu))?.f_unsqueeze(0)?;
        let padding = places.f_ge_tensor(&lengths.f_unsqueeze(1)?)?;
        // Padding reads one more event, of zeros, behind the last.
        let starts = lengths.f_cumsum(0, Kind::Int64)? - &lengths;
        let at = (&places + starts.unsqueeze(1)).f_masked_fill(&padding, total)?.f_view([-1])?;
        let gather = |flat: &Tensor, width: &[i64]| -> Result<Tensor> {
            let flat = Tensor::f_cat(
                &[
                    flat.f_view(&[&[-1], width].concat()[..])?,
                    flat.f_new_zeros([&[1], width].concat(), (flat.kind(), Device::Cpu))?,
                ],
                0,
            )?;
            Ok(flat.f_index_select(0, &at)?.f_view(&[&[b, longest], width].concat()[..])?)
        };
        let [types, items, categories] = ids;
        let from_newest = (lengths.unsqueeze(1) - &places).clamp_max(events_max).masked_fill(&padding, 0);
        // Type 0 is padding, so unknown is 1.
        let types = (gather(&types, &[])?.to_kind(Kind::Int64) + 1).masked_fill(&padding, 0);
        let ids = [
            types,
            gather(&items, &[])?.to_kind(Kind::Int64),
            gather(&categories, &[])?.to_kind(Kind::Int64),
            from_newest,
        ];
        Ok(Self { ids: Tensor::f_stack(&ids, 0)?, reals: gather(reals, &[EVENT_REALS as i64])?, lengths })
    }

    /// On another device.
    pub fn to(&self, device: Device) -> Result<Self> {
        let put = |of: &Tensor| of.f_to_device(device);
        Ok(Self { ids: put(&self.ids)?, reals: put(&self.reals)?, lengths: put(&self.lengths)? })
    }

    /// All numbers: ids, reals, lengths.
    #[cfg(test)]
    pub fn values(&self) -> (Vec<i64>, Vec<f32>, Vec<i64>) {
        let flat = |of: &Tensor| of.contiguous().view([-1]);
        let ints = |of: &Tensor| Vec::try_from(&flat(of)).unwrap();
        (ints(&self.ids), Vec::try_from(&flat(&self.reals)).unwrap(), ints(&self.lengths))
    }

    /// bool [users, events]; false for padding.
    fn present(&self) -> Result<Tensor> {
        let places = Tensor::f_arange(self.ids.size()[2], (Kind::Int64, self.lengths.device()))?;
        Ok(places.f_unsqueeze(0)?.f_lt_tensor(&self.lengths.unsqueeze(1))?)
    }
}

#[derive(Debug)]
pub struct Embedding {
    event_type: nn::Embedding,
    item: nn::Embedding,
    category: nn::Embedding,
    place: nn::Embedding,
    reals: nn::Linear,
}

impl Embedding {
    pub fn new(path: &nn::Path, shape: &IntentShape) -> Self {
        let d = shape.width;
        let table = |name: &str, rows: i64| {
            nn::embedding(path / name, rows, d, nn::EmbeddingConfig { ws_init: SMALL, ..Default::default() })
        };
        Self {
            event_type: table("event_type", TYPES),
            item: table("item", shape.item_buckets as i64 + 1),
            category: table("category", CATEGORY_BUCKETS as i64 + 1),
            place: table("position", shape.events_max + 1),
            reals: nn::linear(path / "reals", EVENT_REALS as i64, d, Default::default()),
        }
    }

    /// What was looked at alone, float32 [users, events, width], and the whole events, padded.
    pub fn forward(&self, batch: &EventBatch) -> Result<(Tensor, Padded)> {
        let things = self.things(&batch.ids.get(1), &batch.ids.get(2));
        let x = self.event_type.forward(&batch.ids.get(0))
            + &things
            + self.place.forward(&batch.ids.get(3))
            + self.reals.forward(&batch.reals);
        Ok((things, Padded { x, lengths: batch.lengths.shallow_clone(), present: batch.present()? }))
    }

    /// Vectors of the event types, float32 [9, width]: unknown, then the eight.
    pub fn types(&self) -> Tensor {
        self.event_type.ws.narrow(0, 1, TYPES - 1)
    }

    /// Vectors of items by the buckets of their ids and categories. One that was seldom met lies near its category.
    pub fn things(&self, items: &Tensor, categories: &Tensor) -> Tensor {
        self.item.forward(items) + self.category.forward(categories)
    }
}
