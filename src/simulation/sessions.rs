//! Plays visits. Genuine and decoy episodes have the same numbers of events of each type in a visit; they differ in order (search
//! first or last, cart last or first), dwell time (rising or falling) and content (one category and brand, or a new one at every
//! step).

use rand::Rng;

use super::catalogue::Catalogue;
use super::events::Event;
use super::intent::{READY_BUYS, State, after_visit};
use super::people::Person;
use super::signal::Signal;
use super::stock::Stock;

/// A visit's events and whether it ended with a purchase that the shop could serve.
pub(super) struct Visit {
    pub(crate) events: Vec<Event>,
    pub(crate) bought: bool,
}

/// Units in one purchase, and their mean.
pub(super) const UNITS_MEAN: f64 = 0.8 + 0.15 * 2.0 + 0.05 * 3.0;

fn units(rng: &mut impl Rng) -> i32 {
    match rng.random::<f64>() {
        x if x < 0.8 => 1,
        x if x < 0.95 => 2,
        _ => 3,
    }
}

/// Returns the chance of a purchase attempt in a visit.
pub(super) fn attempts(person: &Person) -> f64 {
    match person.state {
        State::Idle => person.habits.impulse.into(),
        State::Ready => READY_BUYS.into(),
        _ => 0.0,
    }
}

struct VisitBuilder<'a> {
    ts: i64,
    events: Vec<Event>,
    shop: &'a Catalogue,
}

impl VisitBuilder<'_> {
    fn add(
        &mut self,
        event_type: &'static str,
        item: Option<u32>,
        dwell_ms: Option<i64>,
        rng: &mut impl Rng,
    ) -> &mut Event {
        self.ts += rng.random_range(4_000_000..90_000_000) + dwell_ms.unwrap_or(0) * 1000;
        let price = item.map(|i| self.shop.price(i));
        self.events.push(Event { ts: self.ts, event_type, item, dwell_ms, price, ..Default::default() });
        let last = self.events.len() - 1;
        &mut self.events[last]
    }

    fn view(&mut self, item: u32, seconds: f64, rng: &mut impl Rng) {
        let dwell = (seconds * 1000.0 * (0.6 + 0.8 * rng.random::<f64>())) as i64;
        self.add("view", Some(item), Some(dwell), rng);
    }

    fn search(&mut self, query: String, rng: &mut impl Rng) {
        self.add("search", None, None, rng).query = Some(query);
    }

    fn purchase(&mut self, item: u32, stock: &mut Stock, rng: &mut impl Rng) -> bool {
        let quantity = units(rng);
        stock.want(item, quantity);
        if !stock.take(item, quantity) {
            return false;
        }
        self.add("purchase", Some(item), None, rng).quantity = Some(quantity);
        true
    }
}

/// Plays one visit on `day` (which starts at `midnight`, microseconds) and moves the person's state on.
pub(super) fn visit(
    person: &mut Person,
    day: u32,
    midnight: i64,
    shop: &Catalogue,
    stock: &mut Stock,
    rng: &mut impl Rng,
) -> Visit {
    let minute = (i64::from(person.hour) * 60 + rng.random_range(-120..110)).clamp(0, 1380);
    let mut c = VisitBuilder { ts: midnight + minute * 60_000_000, events: Vec::new(), shop };
    let (slot, category) = (person.brand_slot, person.category);
    let likes = person.clone();
    let any = |rng: &mut _| -> u32 { shop.draw(likes.draw_category(shop.categories(), rng), slot, rng) };
    let appeal = shop.signal.appeal(person.state);
    let mine = |rng: &mut _| -> u32 { shop.draw_appealing(category, slot, appeal, rng) };
    // If the signal is not in the choice of items, a decoy looks at the same items as a genuine episode.
    let stray = |rng: &mut _| -> u32 { if shop.signal == Signal::Mixed { any(rng) } else { mine(rng) } };
    let elsewhere = |person: &Person, rng: &mut _| -> u16 {
        if shop.signal == Signal::Mixed { person.draw_category(shop.categories(), rng) } else { category }
    };
    let mut bought = None;
    match shop.signal.looks_like(person.state) {
        State::Idle => {
            for _ in 0..rng.random_range(1..4) {
                let item = any(rng);
                c.view(item, 12.0, rng);
            }
            if rng.random_bool(f64::from(person.habits.impulse)) {
                let item = any(rng);
                c.add("cart", Some(item), None, rng);
                if c.purchase(item, stock, rng) {
                    bought = Some(item);
                }
            } else if rng.random_bool(0.15) {
                let item = any(rng);
                c.add("click", Some(item), None, rng);
            }
        }
        State::Focus => {
            c.search(shop.word(category).into(), rng);
            for seconds in [8.0, 18.0, 40.0] {
                let item = mine(rng);
                c.view(item, seconds, rng);
            }
            let item = mine(rng);
            c.add("cart", Some(item), None, rng);
            person.cart = item;
        }
        State::DecoyFocus => {
            let item = mine(rng);
            c.add("cart", Some(item), None, rng);
            person.cart = item;
            for seconds in [40.0, 18.0, 8.0] {
                let item = stray(rng);
                c.view(item, seconds, rng);
            }
            let other = elsewhere(person, rng);
            c.search(shop.word(other).into(), rng);
        }
        State::Narrow => {
            let held = mine(rng);
            c.search(format!("{} {}", shop.brand(held).to_lowercase(), shop.word(category)), rng);
            for seconds in [15.0, 30.0] {
                let item = mine(rng);
                c.view(item, seconds, rng);
            }
            c.view(held, 55.0, rng);
            c.add("favorite", Some(held), None, rng);
            person.held = held;
        }
        State::DecoyNarrow => {
            let held = mine(rng);
            c.add("favorite", Some(held), None, rng);
            for seconds in [55.0, 30.0, 15.0] {
                let item = stray(rng);
                c.view(item, seconds, rng);
            }
            let other = elsewhere(person, rng);
            c.search(shop.word(other).into(), rng);
            person.held = held;
        }
        State::Ready => {
            c.view(person.held.min(shop.items.len() as u32 - 1), 30.0, rng);
            // Drawn by weight alone, so that the true demand is the same with every signal.
            let item = shop.draw(category, slot, rng);
            c.view(item, 60.0, rng);
            if rng.random_bool(READY_BUYS.into()) && c.purchase(item, stock, rng) {
                bought = Some(item);
            }
        }
        State::DecoyReady => {
            let item = stray(rng);
            c.view(item, 60.0, rng);
            c.view(person.cart.min(shop.items.len() as u32 - 1), 12.0, rng);
            if rng.random_bool(READY_BUYS.into()) {
                c.add("remove_from_cart", Some(person.cart.min(shop.items.len() as u32 - 1)), None, rng);
            }
        }
    }
    match bought {
        Some(item) => {
            person.state = State::Idle;
            person.bought = item;
            if rng.random_bool(0.25) {
                person.review_day = day + rng.random_range(3..15);
            }
            if rng.random_bool(0.05) {
                person.return_day = day + rng.random_range(2..10);
                person.return_item = item;
                person.return_quantity = c.events.last().and_then(|e| e.quantity).unwrap_or(1);
            }
        }
        None => {
            person.state = after_visit(person.state, &person.habits, rng.random());
            if matches!(person.state, State::Focus | State::DecoyFocus) && category == person.category {
                person.category = person.draw_category(shop.categories(), rng);
            }
        }
    }
    Visit { events: c.events, bought: bought.is_some() }
}

const PRAISE: [&str; 4] =
    ["love it, works as described", "great value, would buy again", "very good quality", "exactly what I wanted"];
const BLAME: [&str; 4] =
    ["broke after a week", "poor quality, sent it back", "not as described", "disappointing for the price"];

/// Returns the reviews and returns that are due on `day`.
pub(super) fn after_purchase(
    person: &mut Person,
    day: u32,
    midnight: i64,
    shop: &Catalogue,
    stock: &mut Stock,
    rng: &mut impl Rng,
) -> Vec<Event> {
    let mut due = Vec::new();
    let item = person.bought;
    if item as usize >= shop.items.len() {
        return due;
    }
    let at = midnight + rng.random_range(32_400_000_000i64..75_600_000_000);
    if person.review_day == day {
        let rating =
            (f64::from(shop.items[item as usize].quality) + rng.random_range(-1.5..1.5)).round().clamp(1.0, 5.0);
        let words = if rating >= 3.0 { PRAISE } else { BLAME };
        due.push(Event {
            ts: at,
            event_type: "review",
            item: Some(item),
            rating: Some(rating as i8),
            text: Some(words[rng.random_range(0..4)].into()),
            ..Default::default()
        });
    }
    if person.return_day == day {
        let item = person.return_item;
        stock.put_back(item, person.return_quantity);
        due.push(Event {
            ts: at + 1_000_000,
            event_type: "purchase",
            item: Some(item),
            quantity: Some(-person.return_quantity),
            price: Some(shop.price(item)),
            ..Default::default()
        });
    }
    due
}

/// Returns the expected units of each item today: for every slot and category, the attempts' mass times the draw's probability.
pub(super) fn demand_rates(mass: &[Vec<f64>], shop: &Catalogue) -> Vec<f64> {
    (0..shop.items.len() as u32)
        .map(|item| {
            let attempts = &mass[usize::from(shop.items[item as usize].category)];
            attempts.iter().enumerate().map(|(slot, m)| m * shop.draw_probability(item, slot) * UNITS_MEAN).sum()
        })
        .collect()
}
