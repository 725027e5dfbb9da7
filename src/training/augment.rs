//! Changed copies of users' events for training, so that the network cannot learn them by heart: cropping and masking
//! and reordering (as CL4SRec does, Xie et al. 2022), and hiding item ids, so that the rest of an event has to speak.

use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::config::TrainConfig;
use crate::config::networks::Augmentation;
use crate::model::inputs::{EVENT_REALS, EventInput, GAP};

/// The least share of events that cropping leaves.
const KEPT_SHARE_MIN: f64 = 0.5;
/// The share of events that masking hides.
const MASKED_SHARE: f64 = 0.15;
/// The share of events, in one stretch, that reordering shuffles.
const REORDERED_SHARE: f64 = 0.3;

/// What is done to each sequence; nothing by default.
#[derive(Debug, Clone, PartialEq)]
pub struct Augmenter {
    kind: Augmentation,
    item_dropout: f64,
}

impl Augmenter {
    pub fn of(config: &TrainConfig) -> Self {
        Self { kind: config.augmentation, item_dropout: config.item_dropout }
    }

    /// All changes at once: another view of the same history.
    pub const ALL: Self = Self { kind: Augmentation::All, item_dropout: 0.0 };

    /// Whether anything is done at all.
    pub fn is_idle(&self) -> bool {
        self.kind == Augmentation::None && self.item_dropout == 0.0
    }

    pub fn apply(&self, events: &[EventInput], rng: &mut ChaCha8Rng) -> Vec<EventInput> {
        let kept = match self.kind {
            Augmentation::Crop | Augmentation::Both | Augmentation::All => crop(events, rng),
            Augmentation::None | Augmentation::Mask | Augmentation::Reorder => events,
        };
        let mut changed = kept.to_vec();
        if kept.len() < events.len() {
            // The first event has no gap, as if the ones before it had never been.
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

/// The newest events, at least half: the oldest are forgotten, the newest never, since idle time is counted from it.
fn crop<'a>(events: &'a [EventInput], rng: &mut ChaCha8Rng) -> &'a [EventInput] {
    let kept = (events.len() as f64 * rng.random_range(KEPT_SHARE_MIN..=1.0)).round() as usize;
    &events[events.len() - kept.min(events.len())..]
}

/// Some events become unknown ones: neither type nor item nor category, price or dwell; their times stay.
fn mask(events: &mut [EventInput], rng: &mut ChaCha8Rng) {
    for event in events {
        if rng.random_bool(MASKED_SHARE) {
            *event = event.masked();
        }
    }
}

/// What happened in one stretch happens in another order; its times stay.
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
    fn nothing_is_changed_by_default() {
        let default = Augmenter::of(&TrainConfig::default());
        assert!(default.is_idle());
        assert_eq!(default.apply(&events(9), &mut ChaCha8Rng::seed_from_u64(1)), events(9));
    }

    #[test]
    fn each_setting_does_what_it_names_and_nothing_else() {
        // Items and categories count up, so that an event is known again and its place is seen.
        let before: Vec<EventInput> =
            events(40).into_iter().zip(1..).map(|(e, i)| EventInput { item: i, category: i, ..e }).collect();
        // Over some draws: whether it ever crops, masks, reorders, hides items alone.
        let does = |augmentation, item_dropout| {
            let config = TrainConfig { augmentation, item_dropout, ..TrainConfig::default() };
            let (by, mut rng) = (Augmenter::of(&config), ChaCha8Rng::seed_from_u64(6));
            let mut found = [false; 4];
            for _ in 0..20 {
                let after = by.apply(&before, &mut rng);
                let known: Vec<&EventInput> = after.iter().filter(|e| e.event_type > 0).collect();
                found[0] |= after.len() < before.len();
                found[1] |= known.len() < after.len();
                found[2] |= !known.is_sorted_by_key(|e| e.category);
                found[3] |= known.iter().any(|e| e.item == 0);
            }
            assert_eq!(by.is_idle(), found == [false; 4]);
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
            assert_eq!(does(augmentation, 0.0), wanted, "{augmentation:?}");
        }
        assert_eq!(does(Augmentation::None, 0.9), [false, false, false, true]);
    }

    #[test]
    fn cropping_forgets_the_oldest_half_at_most_and_never_the_newest() {
        let crop = augmenter(Augmentation::Crop, 0.0);
        let (mut rng, mut lengths) = (ChaCha8Rng::seed_from_u64(2), std::collections::BTreeSet::new());
        for _ in 0..300 {
            let kept = crop.apply(&events(10), &mut rng);
            assert_eq!(kept.last(), events(10).last());
            assert_eq!(kept[0].reals[GAP], if kept.len() == 10 { 0.5 } else { 0.0 });
            lengths.insert(kept.len());
        }
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [5, 6, 7, 8, 9, 10]);
        assert!(crop.apply(&[], &mut rng).is_empty());
    }

    #[test]
    fn masking_hides_about_its_share_and_keeps_the_times() {
        let masked = augmenter(Augmentation::Mask, 0.0).apply(&events(10_000), &mut ChaCha8Rng::seed_from_u64(3));
        let hidden: Vec<&EventInput> = masked.iter().filter(|e| e.item == 0).collect();
        assert!((1_350..1_650).contains(&hidden.len()), "{}", hidden.len());
        assert!(hidden.iter().all(|e| e.event_type == 0 && e.category == 0 && e.reals[GAP] == 0.5));
    }

    #[test]
    fn reordering_moves_what_happened_within_a_stretch_and_no_times() {
        let before: Vec<EventInput> = (0..20)
            .map(|i| EventInput {
                event_type: 1,
                item: i,
                category: 0,
                contents: [0; 3],
                reals: std::array::from_fn(|r| (i * 10 + r as i64) as f32),
            })
            .collect();
        let after = augmenter(Augmentation::Reorder, 0.0).apply(&before, &mut ChaCha8Rng::seed_from_u64(5));
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
    fn item_dropout_hides_items_alone() {
        let hidden = augmenter(Augmentation::None, 0.3).apply(&events(10_000), &mut ChaCha8Rng::seed_from_u64(4));
        let without = hidden.iter().filter(|e| e.item == 0).count();
        assert!((2_800..3_200).contains(&without), "{without}");
        assert!(hidden.iter().all(|e| e.category == 2 && e.event_type > 0));
    }
}
