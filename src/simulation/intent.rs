//! The hidden intent of a user: a small Markov chain over days, and the purchase probability that follows from it.
//!
//! A genuine episode (focus, narrow, ready) and a decoy episode show the same numbers of events of each type on equally
//! many days; they differ only in order and content (sessions.rs). So a model that counts cannot distinguish them.

/// State of a user at the start of a day; the day's session depends on it, then it advances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum State {
    Idle = 0,
    Focus = 1,
    Narrow = 2,
    Ready = 3,
    DecoyFocus = 4,
    DecoyNarrow = 5,
    DecoyReady = 6,
}

impl State {
    pub(super) fn is_decoy(self) -> bool {
        matches!(self, Self::DecoyFocus | Self::DecoyNarrow | Self::DecoyReady)
    }
}

pub(super) const STATES: usize = 7;
/// Chance that an active day advances an episode; otherwise it falls back to idle.
const ADVANCE: f32 = 0.9;
/// Chance that an idle day (no visit) ends an episode.
const LAPSE: f32 = 0.04;
/// Chance that a ready user's visit is a purchase attempt.
pub(super) const READY_BUYS: f32 = 0.6;
/// Chance that a ready user who visited and did not buy stays ready.
const READY_STAYS: f32 = 0.7;

/// The parameters of a user's chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    /// Chance of a visit on an average day without an episode.
    pub(crate) activity: f32,
    /// Chance that an idle visit starts an episode.
    pub(crate) episode: f32,
    /// Chance that a starting episode is genuine.
    pub(crate) genuine: f32,
    /// Chance that an idle visit ends with an impulse purchase.
    pub(crate) impulse: f32,
}

impl Habits {
    /// Returns the chance of a visit today; `season` is the day's factor on traffic.
    pub(super) fn visits(&self, state: State, season: f32) -> f32 {
        let base = match state {
            State::Idle => self.activity,
            _ => 0.32 + 0.5 * self.activity,
        };
        (base * season).min(0.95)
    }
}

/// Returns the state after a visit without a purchase; `draw` is uniform in [0, 1).
pub(super) fn after_visit(state: State, habits: &Habits, draw: f32) -> State {
    let advance = |next| if draw < ADVANCE { next } else { State::Idle };
    match state {
        State::Idle if draw < habits.episode * habits.genuine => State::Focus,
        State::Idle if draw < habits.episode => State::DecoyFocus,
        State::Idle => State::Idle,
        State::Focus => advance(State::Narrow),
        State::Narrow => advance(State::Ready),
        State::Ready if draw < READY_STAYS => State::Ready,
        State::DecoyFocus => advance(State::DecoyNarrow),
        State::DecoyNarrow => advance(State::DecoyReady),
        State::DecoyReady if draw < READY_STAYS * (1.0 - READY_BUYS) => State::DecoyReady,
        State::Ready | State::DecoyReady => State::Idle,
    }
}

/// Returns the state after a day without a visit.
pub(super) fn after_absence(state: State, draw: f32) -> State {
    if draw < LAPSE { State::Idle } else { state }
}

/// Returns the probability of at least one purchase attempt over `seasons` (one traffic factor per day), exact for the chain: one
/// less the mass that reaches the end of the window without a purchase, by forward recursion. Promotions' pull on ready users is
/// ignored (it is not known ahead); `in_stock` is the share of the user's category that is in stock.
pub(super) fn purchase_probability(start: State, habits: &Habits, seasons: &[f32], in_stock: f32) -> f32 {
    let mut mass = [0f32; STATES];
    mass[start as usize] = 1.0;
    let (impulse, buys) = (habits.impulse * in_stock, READY_BUYS * in_stock);
    for &season in seasons {
        let idle_visit = habits.visits(State::Idle, season);
        let visit = habits.visits(State::Ready, season);
        let lapse = (1.0 - visit) * LAPSE;
        let stay = (1.0 - visit) * (1.0 - LAPSE);
        let m = mass;
        let drop_out = visit * (1.0 - ADVANCE) + lapse;
        let not_bought = visit * (1.0 - buys);
        let starts = idle_visit * (1.0 - impulse) * habits.episode;
        mass[0] = m[0] * (1.0 - idle_visit * impulse - starts)
            + (m[1] + m[2] + m[4] + m[5]) * drop_out
            + m[3] * (not_bought * (1.0 - READY_STAYS) + lapse)
            + m[6] * (visit * (1.0 - READY_STAYS * (1.0 - READY_BUYS)) + lapse);
        mass[1] = m[1] * stay + m[0] * starts * habits.genuine;
        mass[2] = m[2] * stay + m[1] * visit * ADVANCE;
        mass[3] = m[3] * (stay + not_bought * READY_STAYS) + m[2] * visit * ADVANCE;
        mass[4] = m[4] * stay + m[0] * starts * (1.0 - habits.genuine);
        mass[5] = m[5] * stay + m[4] * visit * ADVANCE;
        mass[6] = m[6] * (stay + visit * READY_STAYS * (1.0 - READY_BUYS)) + m[5] * visit * ADVANCE;
    }
    (1.0 - mass.iter().sum::<f32>()).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulation::random::coin;

    const HABITS: Habits = Habits { activity: 0.1, episode: 0.3, genuine: 0.45, impulse: 0.02 };

    #[test]
    fn the_closed_form_agrees_with_playing_it_out() {
        let seasons = [1.0, 0.9, 0.9, 1.0, 1.1, 1.4, 1.3];
        for start in [State::Idle, State::Focus, State::Narrow, State::Ready, State::DecoyNarrow] {
            let games = 20_000u64;
            let bought = (0..games).filter(|&game| play(start, game, &seasons)).count() as f64 / games as f64;
            let closed = f64::from(purchase_probability(start, &HABITS, &seasons, 1.0));
            assert!((bought - closed).abs() < 0.012, "{start:?}: played {bought}, closed form {closed}");
        }
    }

    fn play(start: State, game: u64, seasons: &[f32]) -> bool {
        let mut state = start;
        for (day, &season) in seasons.iter().enumerate() {
            let (visit, absence) = coin(7, game, day as u64);
            if visit >= HABITS.visits(state, season) {
                state = after_absence(state, absence);
                continue;
            }
            let (buy, next) = coin(8, game, day as u64);
            let buys = match state {
                State::Idle => HABITS.impulse,
                State::Ready => READY_BUYS,
                _ => 0.0,
            };
            if buy < buys {
                return true;
            }
            state = after_visit(state, &HABITS, next);
        }
        false
    }
}
