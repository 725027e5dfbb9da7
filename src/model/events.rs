//! From events to embedded, padded tensors: the input side of every behaviour backbone.
//!
//! An event's vector is the sum of what is known of it: type, item, category, what its text, picture and video say, place
//! from the newest, and a linear map of its real numbers. Another kind of input is one more summand in [`Embedding`].

use tch::nn::{self, Module};
use tch::{Device, Kind, Tensor};

use super::backbones::Padded;
use super::contents::{ContentRows, Contents, Gathered, MODALITIES, rows_tensor};
use super::fusion::Fusion;
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
    /// Of each modality that is read, by [users, events].
    contents: Vec<Gathered>,
    /// int64 [users].
    pub lengths: Tensor,
}

impl EventBatch {
    /// `contents`: where the rows of the events' contents stand.
    pub fn of(sequences: &[&[EventInput]], events_max: i64, contents: &Contents, device: Device) -> Result<Self> {
        let longest = sequences.iter().map(|s| s.len()).max().unwrap_or(0).max(1);
        let (b, n) = (sequences.len() as i64, longest as i64);
        let mut ids = vec![0i64; 4 * sequences.len() * longest];
        let (types, rest) = ids.split_at_mut(sequences.len() * longest);
        let (items, rest) = rest.split_at_mut(sequences.len() * longest);
        let (categories, places) = rest.split_at_mut(sequences.len() * longest);
        let mut reals = vec![0f32; sequences.len() * longest * EVENT_REALS];
        let mut content_rows = vec![ContentRows::default(); sequences.len() * longest];
        let mut lengths = Vec::with_capacity(sequences.len());
        for (i, events) in sequences.iter().enumerate() {
            lengths.push(events.len() as i64);
            for (j, e) in events.iter().enumerate() {
                let at = i * longest + j;
                (types[at], items[at], categories[at]) = (e.event_type + 1, e.item, e.category);
                // Counted from the newest, so that a longer history does not move the recent events.
                places[at] = ((events.len() - j) as i64).min(events_max);
                reals[at * EVENT_REALS..(at + 1) * EVENT_REALS].copy_from_slice(&e.reals);
                content_rows[at] = e.contents;
            }
        }
        let on_cpu = Self {
            ids: Tensor::f_from_slice(&ids)?.f_view([4, b, n])?,
            reals: Tensor::f_from_slice(&reals)?.f_view([b, n, EVENT_REALS as i64])?,
            contents: contents.gather(&rows_tensor(&content_rows)?.f_view([MODALITIES.len() as i64, b, n])?)?,
            lengths: Tensor::f_from_slice(&lengths)?,
        };
        on_cpu.to(device)
    }

    /// The same from columns of all users' events, one user after the other; `lengths` says how many events are whose. On
    /// the CPU.
    pub fn of_flat(events: FlatEvents, lengths: &[i64], events_max: i64, contents: &Contents) -> Result<Self> {
        let FlatEvents { ids: [types, items, categories], contents: content_rows, reals } = events;
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
        let from_newest = (lengths.unsqueeze(1) - &places).clamp_max(events_max).masked_fill(&padding, 0);
        // Type 0 is padding, so unknown is 1.
        let types = (gather(&types, &[])?.to_kind(Kind::Int64) + 1).masked_fill(&padding, 0);
        let ids = [
            types,
            gather(&items, &[])?.to_kind(Kind::Int64),
            gather(&categories, &[])?.to_kind(Kind::Int64),
            from_newest,
        ];
        let modalities = MODALITIES.len() as i64;
        let content_rows = gather(&content_rows, &[modalities])?.to_kind(Kind::Int64).f_permute([2, 0, 1])?;
        Ok(Self {
            ids: Tensor::f_stack(&ids, 0)?,
            reals: gather(&reals, &[EVENT_REALS as i64])?,
            contents: contents.gather(&content_rows.f_contiguous()?)?,
            lengths,
        })
    }

    /// On another device.
    pub fn to(&self, device: Device) -> Result<Self> {
        let put = |of: &Tensor| of.f_to_device(device);
        let contents = self.contents.iter().map(|of| of.to(device)).collect::<Result<_>>()?;
        Ok(Self { ids: put(&self.ids)?, reals: put(&self.reals)?, contents, lengths: put(&self.lengths)? })
    }

    /// All numbers: ids, reals and the contents' vectors of each event, lengths.
    #[cfg(test)]
    pub fn values(&self) -> (Vec<i64>, Vec<f32>, Vec<i64>) {
        let flat = |of: &Tensor| of.contiguous().view([-1]);
        let ints = |of: &Tensor| Vec::try_from(&flat(of)).unwrap();
        let each = |of: &Gathered| flat(&of.vectors.index_select(0, &flat(&of.at)));
        let reals = [flat(&self.reals)].into_iter().chain(self.contents.iter().map(each)).collect::<Vec<_>>();
        (ints(&self.ids), Vec::try_from(&Tensor::cat(&reals, 0)).unwrap(), ints(&self.lengths))
    }

    /// bool [users, events]; false for padding.
    fn present(&self) -> Result<Tensor> {
        let places = Tensor::f_arange(self.ids.size()[2], (Kind::Int64, self.lengths.device()))?;
        Ok(places.f_unsqueeze(0)?.f_lt_tensor(&self.lengths.unsqueeze(1))?)
    }
}

/// Events of several users as flat columns, on the CPU.
#[derive(Debug)]
pub struct FlatEvents {
    /// Integers [events] each: type, item and category.
    pub ids: [Tensor; 3],
    /// Integers [events × modalities], row-major.
    pub contents: Tensor,
    /// float32 [events × EVENT_REALS], row-major.
    pub reals: Tensor,
}

#[derive(Debug)]
pub struct Embedding {
    event_type: nn::Embedding,
    item: nn::Embedding,
    category: nn::Embedding,
    fusion: Fusion,
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
            fusion: Fusion::new(path, shape.fusion, d, shape.content_dims),
            place: table("position", shape.events_max + 1),
            reals: nn::linear(path / "reals", EVENT_REALS as i64, d, Default::default()),
        }
    }

    /// What was looked at alone, float32 [users, events, width], and the whole events, padded.
    pub fn forward(&self, batch: &EventBatch) -> Result<(Tensor, Padded)> {
        let things = self.things(&batch.ids.get(1), &batch.ids.get(2), &batch.contents)?;
        let x = self.event_type.forward(&batch.ids.get(0))
            + &things
            + self.place.forward(&batch.ids.get(3))
            + self.reals.forward(&batch.reals);
        Ok((things, Padded { x, lengths: batch.lengths.shallow_clone(), present: batch.present()? }))
    }

    /// Numbers of a user's own means of contents, beside those of the events.
    pub fn means_width(&self) -> i64 {
        self.fusion.means_width()
    }

    /// Of each user the mean text, picture and video; `None` where the fusion has but one level.
    pub fn means(&self, batch: &EventBatch, things: &Tensor) -> Result<Option<Tensor>> {
        self.fusion.means(things, &batch.contents)
    }

    /// Vectors of the event types, float32 [9, width]: unknown, then the eight.
    pub fn types(&self) -> Tensor {
        self.event_type.ws.narrow(0, 1, TYPES - 1)
    }

    /// Vectors of items by the buckets of their ids and categories, and what they show. One that was seldom met lies near
    /// its category and near those that look alike.
    pub fn things(&self, items: &Tensor, categories: &Tensor, contents: &[Gathered]) -> Result<Tensor> {
        self.fusion.forward(&(self.item.forward(items) + self.category.forward(categories)), contents)
    }
}
