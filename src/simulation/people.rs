//! The simulated users: fixed-size records of habits, tastes and current state, small enough for millions.

use rand::Rng;

use super::catalogue::{BRAND_SLOTS, log_normal, uniform};
use super::intent::{Habits, State};
use super::random::{Purpose, stream};

pub(super) const NO_ITEM: u32 = u32::MAX;
pub(super) const NEVER: u32 = u32::MAX;
/// Shares of a user's attention for the three favourite categories; the rest goes to any category.
pub(super) const TASTES: [f64; 3] = [0.5, 0.25, 0.12];
const COUNTRIES: [&str; 6] = ["DE", "FR", "NL", "ES", "IT", "PL"];

#[derive(Clone, Debug)]
pub(super) struct Person {
    pub(crate) habits: Habits,
    pub(crate) tastes: [u16; 3],
    pub(crate) brand_slot: u8,
    /// Hour of the day around which visits start.
    pub(crate) hour: u8,
    /// First day with a visit; 0 for users from before the lake begins.
    pub(crate) joins: u32,
    /// First day without visits: churned, or erased.
    pub(crate) leaves: u32,
    /// Before this day the user is the guest `g…`; 0 = never a guest, `NEVER` = never logs in.
    pub(crate) logs_in: u32,
    pub(crate) state: State,
    /// Category of the current episode.
    pub(crate) category: u16,
    /// Item in the cart since the episode's first session.
    pub(crate) cart: u32,
    /// The item that the episode narrowed down to.
    pub(crate) held: u32,
    pub(crate) bought: u32,
    pub(crate) review_day: u32,
    pub(crate) return_day: u32,
    /// The item to return: the user may have bought another one since.
    pub(crate) return_item: u32,
    pub(crate) return_quantity: i32,
}

/// The user's row in the `users` table; drawn again when it is written, not stored.
pub(super) struct MasterData {
    pub(crate) country: &'static str,
    pub(crate) consent: Option<bool>,
    pub(crate) excluded: Option<bool>,
    /// Days from the start of the lake: negative, because only users from before it have one.
    pub(crate) signed_up_day: Option<i64>,
    pub(crate) erasure_day: Option<u32>,
}

impl Person {
    pub(super) fn new(seed: u64, number: u64, days: u32, categories: usize) -> Self {
        let mut rng = stream(seed, Purpose::Person, 0, number);
        let tastes = std::array::from_fn(|_| rng.random_range(0..categories) as u16);
        let activity = (0.075 * log_normal(0.55, &mut rng)).clamp(0.01, 0.6);
        // Frequent visitors start fewer episodes per visit, so that the number of visits predicts little about buying.
        let episode = (0.26 * (0.075 / activity).sqrt() * log_normal(0.3, &mut rng)).clamp(0.02, 0.8);
        let joins = if rng.random_bool(0.15) { (f64::from(days) * rng.random::<f64>()) as u32 } else { 0 };
        let stays = -(1.0 - rng.random::<f64>()).ln() * 700.0;
        let guest: f64 = rng.random();
        let logs_in = match guest {
            x if x < 0.03 => NEVER,
            x if x < 0.11 => joins + 1 + (f64::from(days) * 0.5 * rng.random::<f64>()) as u32,
            _ => 0,
        };
        let leaves = joins.saturating_add(stays as u32).saturating_add(3);
        let erased = MasterData::new(seed, number, days).erasure_day.unwrap_or(NEVER);
        Self {
            habits: Habits {
                activity: activity as f32,
                episode: episode as f32,
                genuine: uniform(0.35, 0.5, &mut rng) as f32,
                impulse: (0.012 * log_normal(0.5, &mut rng)) as f32,
            },
            tastes,
            brand_slot: rng.random_range(0..BRAND_SLOTS) as u8,
            hour: [8, 12, 13, 17, 18, 19, 20, 20, 21, 21][rng.random_range(0..10)],
            joins,
            leaves: leaves.min(erased),
            logs_in,
            state: State::Idle,
            category: tastes[0],
            cart: NO_ITEM,
            held: NO_ITEM,
            bought: NO_ITEM,
            review_day: NEVER,
            return_day: NEVER,
            return_item: NO_ITEM,
            return_quantity: 0,
        }
    }

    pub(super) fn is_active(&self, day: u32) -> bool {
        self.joins <= day && day < self.leaves
    }

    /// Draws a category to look at, mostly a favourite one.
    pub(super) fn draw_category(&self, categories: usize, rng: &mut impl Rng) -> u16 {
        let mut draw: f64 = rng.random();
        for (share, category) in TASTES.iter().zip(self.tastes) {
            if draw < *share {
                return category;
            }
            draw -= share;
        }
        rng.random_range(0..categories) as u16
    }
}

impl MasterData {
    pub(super) fn new(seed: u64, number: u64, days: u32) -> Self {
        let mut rng = stream(seed, Purpose::Person, 1, number);
        let consent = match rng.random::<f64>() {
            x if x < 0.90 => Some(true),
            x if x < 0.94 => Some(false),
            _ => None,
        };
        let excluded = match rng.random::<f64>() {
            x if x < 0.005 => Some(true),
            x if x < 0.8 => Some(false),
            _ => None,
        };
        Self {
            country: COUNTRIES[(rng.random::<f64>().powi(2) * COUNTRIES.len() as f64) as usize],
            consent,
            excluded,
            signed_up_day: rng.random_bool(0.95).then(|| -rng.random_range(1..900)),
            erasure_day: rng.random_bool(0.002).then(|| days / 2 + rng.random_range(0..days.div_ceil(2))),
        }
    }
}
