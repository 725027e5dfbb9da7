//! Augmentation: changed copies of users' events, so that the network cannot memorise them. Cropping, masking and
//! reordering follow CL4SRec (Xie et al. 2022); item dropout makes the network use the rest of an event.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::config::TrainConfig;
use crate::config::networks::Augmentation;
use crate::model::inputs::{EVENT_REALS, EventInput, GAP};

/// The smallest share of events that cropping leaves.
const CROPPED_SHARE_MIN: f64 = 0.5;
/// The share of events that masking hides.
const MASKED_SHARE: f64 = 0.15;
/// The share of events, in one stretch, that reordering shuffles.
const REORDERED_SHARE: f64 = 0.3;

/// The changes made to each history; none by default.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Augmenter {
    kind: Augmentation,
    item_dropout: f64,
}

impl Augmenter {
    pub(crate) fn from_config(config: &TrainConfig) -> Self {
        Self { kind: config.augmentation, item_dropout: config.item_dropout }
    }

    /// Crops, masks and reorders: another view of the same history.
    pub(crate) const ALL: Self = Self { kind: Augmentation::All, item_dropout: 0.0 };

    pub(crate) fn changes_nothing(&self) -> bool {
        self.kind == Augmentation::None && self.item_dropout == 0.0
    }

    /// Returns a changed copy of a history.
    pub(crate) fn augment(&self, events: &[EventInput], rng: &mut ChaCha8Rng) -> Vec<EventInput> {
        let cropped = match self.kind {
            Augmentation::Crop | Augmentation::Both | Augmentation::All => crop(events, rng),
            Augmentation::None | Augmentation::Mask | Augmentation::Reorder => events,
        };
        let mut changed = cropped.to_vec();
        if cropped.len() < events.len() {
            // The first event has no gap, as if it had been the first ever.
            changed[0].reals[GAP] = 0.0;
        }
        if matches!(self.kind, Augmentation::Reorder | Augmentation::All) {
            reorder(&mut changed, rng);
        }
        if matches!(self.kind, Augmentation::Mask | Augmentation::Both | Augmentation::All) {
            mask(&mut changed, rng);
        }
        for event in &mut changed {
            if self.item_dropout > 0.0 && rng.random_bool(self.item_dropout) {
                event.item = 0;
            }
        }
        changed
    }
}

/// Drops the oldest events, at most half. The newest stays: idle time is counted from it.
fn crop<'a>(events: &'a [EventInput], rng: &mut ChaCha8Rng) -> &'a [EventInput] {
    let length = (events.len() as f64 * rng.random_range(CROPPED_SHARE_MIN..=1.0)).round() as usize;
    &events[events.len() - length.min(events.len())..]
}

/// Removes type, item, category, price and dwell time of some events; their times stay.
fn mask(events: &mut [EventInput], rng: &mut ChaCha8Rng) {
    for event in events {
        if rng.random_bool(MASKED_SHARE) {
            *event = event.masked();
        }
    }
}

/// Shuffles the events of one stretch; the times stay in place.
fn reorder(events: &mut [EventInput], rng: &mut ChaCha8Rng) {
    let stretch = (events.len() as f64 * REORDERED_SHARE).round() as usize;
    if stretch < 2 {
        return;
    }
    let from = rng.random_range(0..=events.len() - stretch);
    let times: Vec<[f32; EVENT_REALS]> = events[from..from + stretch].iter().map(|e| e.reals).collect();
    events[from..from + stretch].shuffle(rng);
    for (event, times) in events[from..from + stretch].iter_mut().zip(times) {
        event.reals[GAP..].copy_from_slice(&times[GAP..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn events(n: usize) -> Vec<EventInput> {
        let one = |i: usize| EventInput {
            event_type: 1 + (i % 8) as i64,
            item: 5,
            category: 2,
            contents: [0, 3, 0],
            reals: [0.5; 8],
        };
        (0..n).map(one).collect()
    }

    fn augmenter(kind: Augmentation, item_dropout: f64) -> Augmenter {
        Augmenter { kind, item_dropout }
    }

    #[test]
    fn the_default_changes_nothing() {
        let default = Augmenter::from_config(&TrainConfig::default());
        assert!(default.changes_nothing());
        assert_eq!(default.augment(&events(9), &mut ChaCha8Rng::seed_from_u64(1)), events(9));
    }

    #[test]
    fn each_setting_makes_its_own_changes_and_no_others() {
        // Items and categories count up, so that each event can be recognised.
        let before: Vec<EventInput> =
            events(40).into_iter().zip(1..).map(|(e, i)| EventInput { item: i, category: i, ..e }).collect();
        // Over some draws: whether it ever crops, masks, reorders, hides only items.
        let changes = |augmentation, item_dropout| {
            let config = TrainConfig { augmentation, item_dropout, ..TrainConfig::default() };
            let augmenter = Augmenter::from_config(&config);
            let mut rng = ChaCha8Rng::seed_from_u64(6);
            let mut found = [false; 4];
            for _ in 0..20 {
                let after = augmenter.augment(&before, &mut rng);
                let known: Vec<&EventInput> = after.iter().filter(|e| e.event_type > 0).collect();
                found[0] |= after.len() < before.len();
                found[1] |= known.len() < after.len();
                found[2] |= !known.is_sorted_by_key(|e| e.category);
                found[3] |= known.iter().any(|e| e.item == 0);
            }
            assert_eq!(augmenter.changes_nothing(), found == [false; 4]);
            found
        };
        for (augmentation, wanted) in [
            (Augmentation::None, [false, false, false, false]),
            (Augmentation::Crop, [true, false, false, false]),
            (Augmentation::Mask, [false, true, false, false]),
            (Augmentation::Both, [true, true, false, false]),
            (Augmentation::Reorder, [false, false, true, false]),
            (Augmentation::All, [true, true, true, false]),
        ] {
            assert_eq!(changes(augmentation, 0.0), wanted, "{augmentation:?}");
        }
        assert_eq!(changes(Augmentation::None, 0.9), [false, false, false, true]);
    }

    #[test]
    fn cropping_drops_at_most_the_oldest_half() {
        let crop = augmenter(Augmentation::Crop, 0.0);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut lengths = std::collections::BTreeSet::new();
        for _ in 0..300 {
            let cropped = crop.augment(&events(10), &mut rng);
            assert_eq!(cropped.last(), events(10).last());
            assert_eq!(cropped[0].reals[GAP], if cropped.len() == 10 { 0.5 } else { 0.0 });
            lengths.insert(cropped.len());
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10]);
        assert!(crop.augment(&[], &mut rng).is_empty());
    }

    #[test]
    fn masking_hides_its_share_of_events_but_not_the_times() {
        let masked = augmenter(Augmentation::Mask, 0.0).augment(&events(10_000), &mut ChaCha8Rng::seed_from_u64(3));
        let hidden: Vec<&EventInput> = masked.iter().filter(|e| e.item == 0).collect();
        assert!((1_350..1_650).contains(&hidden.len()), "{}", hidden.len());
        assert!(hidden.iter().all(|e| e.event_type == 0 && e.category == 0 && e.reals[GAP] == 0.5));
    }

    #[test]
    fn reordering_shuffles_one_stretch_and_leaves_the_times() {
        let before: Vec<EventInput> = (0..20)
            .map(|i| EventInput {
                event_type: 1,
                item: i,
                category: 0,
                contents: [0; 3],
                reals: std::array::from_fn(|r| (i * 10 + r as i64) as f32),
            })
            .collect();
        let after = augmenter(Augmentation::Reorder, 0.0).augment(&before, &mut ChaCha8Rng::seed_from_u64(5));
        let moved: Vec<usize> = (0..20).filter(|&i| before[i].item != after[i].item).collect();
        assert!((2..=6).contains(&moved.len()) && moved[moved.len() - 1] - moved[0] < 6, "{moved:?}");
        let mut items: Vec<i64> = after.iter().map(|e| e.item).collect();
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
        for (event, was) in after.iter().zip(&before) {
            assert_eq!(event.reals[GAP..], was.reals[GAP..]);
            assert_eq!(event.reals[..GAP], before[event.item as usize].reals[..GAP]);
        }
    }

    #[test]
    fn item_dropout_hides_only_items() {
        let hidden = augmenter(Augmentation::None, 0.3).augment(&events(10_000), &mut ChaCha8Rng::seed_from_u64(4));
        let without = hidden.iter().filter(|e| e.item == 0).count();
        assert!((2_800..3_200).contains(&without), "{without}");
        assert!(hidden.iter().all(|e| e.category == 2 && e.event_type > 0));
    }
}
