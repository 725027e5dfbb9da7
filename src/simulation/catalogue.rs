//! The simulated shop's catalogue: categories, brands, titles, prices, promotions, and the choice weights of each day.

use rand::Rng;
use rand_distr::{Distribution, LogNormal, StandardNormal};

use super::random::{Purpose, stream};
use super::signal::Signal;

/// Department, group, leaf, usual price: the leaf is the general search word.
const CATEGORIES: [(&str, &str, &str, f64); 24] = [
    ("home", "kitchen", "kettle", 35.0),
    ("home", "kitchen", "skillet", 45.0),
    ("home", "kitchen", "mug", 9.0),
    ("home", "bedroom", "pillow", 25.0),
    ("home", "bedroom", "blanket", 40.0),
    ("home", "lighting", "lamp", 55.0),
    ("garden", "tools", "spade", 28.0),
    ("garden", "plants", "planter", 18.0),
    ("garden", "outdoor", "lantern", 22.0),
    ("fashion", "shoes", "sneaker", 80.0),
    ("fashion", "shoes", "boot", 110.0),
    ("fashion", "tops", "sweater", 50.0),
    ("fashion", "bags", "backpack", 60.0),
    ("sport", "running", "shorts", 30.0),
    ("sport", "cycling", "helmet", 65.0),
    ("sport", "fitness", "dumbbell", 32.0),
    ("electronics", "audio", "headphone", 120.0),
    ("electronics", "audio", "speaker", 90.0),
    ("electronics", "computing", "keyboard", 70.0),
    ("electronics", "computing", "charger", 24.0),
    ("beauty", "skin", "cream", 16.0),
    ("beauty", "hair", "shampoo", 8.0),
    ("grocery", "drinks", "tea", 6.0),
    ("grocery", "pantry", "pasta", 3.0),
];
const BRANDS: [&str; 18] = [
    "Alder", "Birch", "Cobalt", "Dune", "Ember", "Fjord", "Garnet", "Harbor", "Indigo", "Juniper", "Kestrel", "Lumen",
    "Maple", "Nimbus", "Onyx", "Prairie", "Quarry", "Ridge",
];
const QUALITIES: [&str; 12] = [
    "classic", "light", "sturdy", "compact", "soft", "bright", "quiet", "slim", "warm", "modern", "travel", "everyday",
];
const COLOURS: [&str; 8] = ["black", "white", "green", "blue", "red", "grey", "sand", "silver"];

/// Brand slots in each category; a user prefers one of them.
pub(super) const BRAND_SLOTS: usize = 6;
pub(super) const VECTOR_WIDTH: usize = 16;
/// Factor on the choice weight of an item on promotion.
const PROMOTION_PULL: f64 = 2.5;
/// Days for which an item is sold if ids must not predict appeal.
const LIFE_DAYS: u32 = 21;
/// Distance by which appeal moves a picture's vector; the noise has standard deviation 1.
const PULL: f32 = 1.5;
/// Draws until the last one is accepted without the preferred brand.
const BRAND_TRIES: usize = 3;
/// Draws until the last one is accepted without the wanted appeal.
const APPEAL_TRIES: usize = 12;

pub(super) struct Item {
    pub(crate) category: u16,
    pub(crate) brand_slot: u8,
    /// Ten-thousandths of the currency unit, as decimal(18,4) stores it.
    pub(crate) price: i64,
    pub(crate) title: String,
    pub(crate) vector: [f32; VECTOR_WIDTH],
    /// The property that the signal shows (signal.rs).
    pub(crate) appeal: bool,
    /// True if it is sold from the first day to the last.
    pub(crate) always_sold: bool,
    /// Mean rating by buyers.
    pub(crate) quality: f32,
    pub(crate) first_day: u32,
    /// The day from which it is no longer sold.
    pub(crate) last_day: u32,
    popularity: f64,
    /// Growth of its share per day, in log units.
    trend: f64,
    /// Weekday on which it sells best, and by how much.
    weekday: u32,
    weekday_pull: f64,
}

#[derive(Clone, Copy)]
pub(super) struct Promotion {
    pub(crate) item: u32,
    pub(crate) first_day: u32,
    pub(crate) last_day: u32,
    pub(crate) price: i64,
}

pub(super) struct Catalogue {
    pub(crate) items: Vec<Item>,
    pub(crate) promotions: Vec<Promotion>,
    /// Items of each category, by increasing item number.
    members: Vec<Vec<u32>>,
    today: Today,
    pub(crate) signal: Signal,
}

/// Prices and choice weights of one day.
#[derive(Default)]
struct Today {
    /// Cumulative choice weights, parallel to `members`, each category's ending at 1.
    cumulative: Vec<Vec<f64>>,
    /// Share of each brand slot in its category.
    slots: Vec<[f64; BRAND_SLOTS]>,
    share: Vec<f64>,
    price: Vec<i64>,
    promoted: Vec<bool>,
}

impl Catalogue {
    pub(super) fn new(seed: u64, items: u64, days: u32, signal: Signal) -> Self {
        let categories = usize::try_from(items / 6).unwrap_or(usize::MAX).clamp(1, CATEGORIES.len());
        let mut rng = stream(seed, Purpose::Catalogue, 0, 0);
        let centres: Vec<[f32; VECTOR_WIDTH]> =
            (0..categories * (1 + BRAND_SLOTS)).map(|_| std::array::from_fn(|_| rng.sample(StandardNormal))).collect();
        let mut members = vec![Vec::new(); categories];
        let mut all = Vec::new();
        let mut promotions = Vec::new();
        for number in 0..u32::try_from(items).unwrap_or(u32::MAX) {
            let mut rng = stream(seed, Purpose::Catalogue, 1, u64::from(number));
            let category = number as usize % categories;
            let always_sold = members[category].is_empty();
            let mut item = Item::new(category, days, always_sold, &centres, &mut rng);
            item.give_appeal(signal, days, &mut stream(seed, Purpose::Catalogue, 2, u64::from(number)));
            item.promote(number, days, &mut promotions, &mut rng);
            members[category].push(number);
            all.push(item);
        }
        Self { items: all, promotions, members, today: Today::default(), signal }
    }

    pub(super) fn categories(&self) -> usize {
        self.members.len()
    }

    /// Sets prices and choice weights for `day`, which the methods below use.
    pub(super) fn start_day(&mut self, day: u32, weekday: u32) {
        let today = &mut self.today;
        today.price = self.items.iter().map(|i| i.price).collect();
        today.promoted = vec![false; self.items.len()];
        for p in self.promotions.iter().filter(|p| p.first_day <= day && day <= p.last_day) {
            today.price[p.item as usize] = p.price;
            today.promoted[p.item as usize] = true;
        }
        today.share = (self.items.iter().zip(&today.promoted)).map(|(i, p)| i.weight(day, weekday, *p)).collect();
        today.cumulative.clear();
        today.slots.clear();
        for members in &self.members {
            let total: f64 = members.iter().map(|&i| today.share[i as usize]).sum();
            let mut slots = [0.0; BRAND_SLOTS];
            let mut reached = 0.0;
            let mut cumulative = Vec::with_capacity(members.len());
            for &i in members {
                let share = &mut today.share[i as usize];
                *share /= total;
                slots[usize::from(self.items[i as usize].brand_slot)] += *share;
                reached += *share;
                cumulative.push(reached);
            }
            today.cumulative.push(cumulative);
            today.slots.push(slots);
        }
    }

    /// Draws an item of `category` for a user who prefers `slot`: up to three draws by weight, the first of the brand wins.
    pub(super) fn draw(&self, category: u16, slot: u8, rng: &mut impl Rng) -> u32 {
        let category = usize::from(category);
        let (members, cumulative) = (&self.members[category], &self.today.cumulative[category]);
        let mut item = members[0];
        for _ in 0..BRAND_TRIES {
            let draw: f64 = rng.random();
            item = members[cumulative.partition_point(|&c| c <= draw).min(members.len() - 1)];
            if self.items[item as usize].brand_slot == slot {
                break;
            }
        }
        item
    }

    /// Draws an item like [`Catalogue::draw`], again a few times until it has the wanted appeal.
    pub(super) fn draw_appealing(&self, category: u16, slot: u8, appeal: Option<bool>, rng: &mut impl Rng) -> u32 {
        let mut item = self.draw(category, slot, rng);
        for _ in 0..APPEAL_TRIES {
            if appeal.is_none_or(|wanted| self.items[item as usize].appeal == wanted) {
                break;
            }
            item = self.draw(category, slot, rng);
        }
        item
    }

    /// Returns the probability that [`Catalogue::draw`] returns `item`.
    pub(super) fn draw_probability(&self, item: u32, slot: usize) -> f64 {
        let entry = &self.items[item as usize];
        let miss = 1.0 - self.today.slots[usize::from(entry.category)][slot];
        let share = self.today.share[item as usize];
        match usize::from(entry.brand_slot) == slot {
            true => share * (1.0 + miss + miss * miss),
            false => share * miss * miss,
        }
    }

    /// Returns the item's share of the whole shop's choices, for the initial stock.
    pub(super) fn share(&self, item: u32) -> f64 {
        self.today.share[item as usize] / self.categories() as f64
    }

    pub(super) fn price(&self, item: u32) -> i64 {
        self.today.price[item as usize]
    }

    pub(super) fn sold_on(&self, item: u32, day: u32) -> bool {
        let entry = &self.items[item as usize];
        entry.first_day <= day && day < entry.last_day
    }

    pub(super) fn category_path(&self, category: u16) -> String {
        let (department, group, leaf, _) = CATEGORIES[usize::from(category)];
        format!("{department}/{group}/{leaf}")
    }

    /// Returns the general search word of a category.
    pub(super) fn word(&self, category: u16) -> &'static str {
        CATEGORIES[usize::from(category)].2
    }

    pub(super) fn brand(&self, item: u32) -> &'static str {
        let entry = &self.items[item as usize];
        brand(usize::from(entry.category), usize::from(entry.brand_slot))
    }
}

fn brand(category: usize, slot: usize) -> &'static str {
    BRANDS[(category * 5 + slot * 3) % BRANDS.len()]
}

impl Item {
    fn new(category: usize, days: u32, always_sold: bool, centres: &[[f32; VECTOR_WIDTH]], rng: &mut impl Rng) -> Self {
        let slot = rng.random_range(0..BRAND_SLOTS);
        let (_, _, leaf, usual) = CATEGORIES[category];
        let spread = (0.4 * rng.sample::<f64, _>(StandardNormal)).exp();
        let price = (usual * spread).max(1.0).floor() as i64 * 10_000 + 9_900;
        let quality_word = QUALITIES[rng.random_range(0..QUALITIES.len())];
        let colour = COLOURS[rng.random_range(0..COLOURS.len())];
        let (centre, flavour) = (&centres[category], &centres[centres.len() - 1 - (category * BRAND_SLOTS + slot)]);
        let raw: [f32; VECTOR_WIDTH] =
            std::array::from_fn(|k| centre[k] + 0.5 * flavour[k] + 0.3 * rng.sample::<f32, _>(StandardNormal));
        let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
        let life: f64 = rng.random();
        let within = |from: f64, to: f64, rng: &mut _| (f64::from(days) * uniform(from, to, rng)) as u32;
        let (first_day, last_day) = match (always_sold, life) {
            (false, x) if x < 0.12 => (within(0.1, 0.9, rng), u32::MAX),
            (false, x) if x < 0.20 => (0, within(0.3, 0.95, rng)),
            _ => (0, u32::MAX),
        };
        Self {
            category: category as u16,
            brand_slot: slot as u8,
            price,
            title: format!("{} {quality_word} {colour} {leaf}", brand(category, slot)),
            vector: raw.map(|x| x / length),
            appeal: false,
            always_sold,
            quality: uniform(2.6, 4.8, rng) as f32,
            first_day,
            last_day,
            popularity: log_normal(0.9, rng),
            trend: 0.004 * rng.sample::<f64, _>(StandardNormal),
            weekday: rng.random_range(0..7),
            weekday_pull: uniform(0.0, 0.8, rng),
        }
    }

    /// Gives the item its appeal, and removes every trace of it except `signal`.
    fn give_appeal(&mut self, signal: Signal, days: u32, rng: &mut impl Rng) {
        self.appeal = rng.random_bool(0.5);
        if signal == Signal::Mixed {
            return;
        }
        let side = match (signal, self.appeal) {
            (Signal::Image, true) => PULL,
            (Signal::Image, false) => -PULL,
            _ => 0.0,
        };
        let raw: [f32; VECTOR_WIDTH] =
            std::array::from_fn(|k| side * if k % 2 == 0 { 0.5 } else { -0.5 } + rng.sample::<f32, _>(StandardNormal));
        let length = raw.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-6);
        self.vector = raw.map(|x| x / length);
        let (appealing, plain) = QUALITIES.split_at(QUALITIES.len() / 2);
        let words = match (signal, self.appeal) {
            (Signal::Text, true) => appealing,
            (Signal::Text, false) => plain,
            _ => &QUALITIES[..],
        };
        self.set_quality_word(words[rng.random_range(0..words.len())]);
        if signal.is_in_content() && !self.always_sold {
            let first = rng.random_range(0..days + LIFE_DAYS);
            (self.first_day, self.last_day) = (first.saturating_sub(LIFE_DAYS), first);
        }
    }

    /// Replaces the quality word in the title.
    fn set_quality_word(&mut self, word: &str) {
        let brand = brand(usize::from(self.category), usize::from(self.brand_slot));
        let rest: Vec<&str> = self.title[brand.len()..].split_whitespace().skip(1).collect();
        self.title = format!("{brand} {word} {}", rest.join(" "));
    }

    /// Plans promotions: in each month one item in six is on promotion for five to ten days.
    fn promote(&self, number: u32, days: u32, promotions: &mut Vec<Promotion>, rng: &mut impl Rng) {
        for month in 0..days.div_ceil(30) {
            if !rng.random_bool(0.17) {
                continue;
            }
            let first_day = month * 30 + rng.random_range(0..20);
            let last_day = first_day + rng.random_range(4..10);
            let price = (self.price as f64 * uniform(0.65, 0.85, rng) / 100.0) as i64 * 100;
            if first_day < days {
                promotions.push(Promotion { item: number, first_day, last_day, price });
            }
        }
    }

    fn weight(&self, day: u32, weekday: u32, promoted: bool) -> f64 {
        if day < self.first_day || day >= self.last_day {
            return 0.0;
        }
        let pull = if promoted { PROMOTION_PULL } else { 1.0 };
        let weekday_factor = if weekday == self.weekday { 1.0 + self.weekday_pull } else { 1.0 };
        self.popularity * (self.trend * f64::from(day)).exp() * pull * weekday_factor
    }
}

pub(super) fn uniform(from: f64, to: f64, rng: &mut impl Rng) -> f64 {
    from + (to - from) * rng.random::<f64>()
}

pub(super) fn log_normal(sigma: f64, rng: &mut impl Rng) -> f64 {
    LogNormal::new(0.0, sigma).map_or(1.0, |d| d.sample(rng))
}
