//! The shop's stock: a simple reorder policy that sometimes orders too little, so that stock-outs hide demand.

use rand::Rng;

use super::random::{Purpose, stream};

#[derive(Clone, Debug)]
pub(super) struct StockLine {
    pub(crate) on_hand: i64,
    pub(crate) on_order: i64,
    pub(crate) lead_time_days: i32,
    pub(crate) pack_size: i32,
    pub(crate) min_order_quantity: i32,
    pub(crate) service_level: Option<f64>,
    /// The smoothed daily sales that the shop sees.
    daily_demand: f64,
    /// The buyer's margin of safety; below one means stock-outs.
    caution: f64,
    /// (arrival day, units).
    due: Vec<(u32, i64)>,
    pub(crate) wanted: i64,
    pub(crate) sold: i64,
}

pub(super) struct Stock {
    pub(crate) lines: Vec<StockLine>,
}

impl Stock {
    /// Starts with stock for about two weeks at the expected `daily` units.
    pub(super) fn new(seed: u64, daily: &[f64]) -> Self {
        let lines = daily.iter().enumerate().map(|(item, &daily_demand)| {
            let mut rng = stream(seed, Purpose::Stock, 0, item as u64);
            let lead_time_days = rng.random_range(2..15);
            let pack_size = [1, 1, 2, 6, 12][rng.random_range(0..5)];
            StockLine {
                on_hand: (daily_demand * (10.0 + f64::from(lead_time_days))).ceil() as i64 + 2,
                on_order: 0,
                lead_time_days,
                pack_size,
                min_order_quantity: pack_size * rng.random_range(1..3),
                service_level: rng.random_bool(0.5).then(|| [0.9, 0.95, 0.98][rng.random_range(0..3)]),
                daily_demand,
                caution: 0.6 + 1.2 * rng.random::<f64>(),
                due: Vec::new(),
                wanted: 0,
                sold: 0,
            }
        });
        Self { lines: lines.collect() }
    }

    /// Books the deliveries that arrive before the shop opens.
    pub(super) fn morning(&mut self, day: u32) {
        for line in &mut self.lines {
            (line.wanted, line.sold) = (0, 0);
            let arrived: i64 = line.due.iter().filter(|d| d.0 <= day).map(|d| d.1).sum();
            line.due.retain(|d| d.0 > day);
            line.on_hand += arrived;
            line.on_order -= arrived;
        }
    }

    pub(super) fn want(&mut self, item: u32, quantity: i32) {
        self.lines[item as usize].wanted += i64::from(quantity);
    }

    pub(super) fn take(&mut self, item: u32, quantity: i32) -> bool {
        let line = &mut self.lines[item as usize];
        if line.on_hand < i64::from(quantity) {
            return false;
        }
        line.on_hand -= i64::from(quantity);
        line.sold += i64::from(quantity);
        true
    }

    pub(super) fn put_back(&mut self, item: u32, quantity: i32) {
        self.lines[item as usize].on_hand += i64::from(quantity);
    }

    /// Places orders after the shop closes.
    pub(super) fn evening(&mut self, day: u32) {
        for line in &mut self.lines {
            line.daily_demand = 0.95 * line.daily_demand + 0.05 * line.sold as f64;
            let lead = f64::from(line.lead_time_days);
            let point = line.caution * line.daily_demand * lead + 1.0;
            if (line.on_hand + line.on_order) as f64 <= point {
                let wanted = (line.daily_demand * (lead + 7.0)).ceil().max(f64::from(line.min_order_quantity));
                let packs = (wanted / f64::from(line.pack_size)).ceil() as i64;
                let units = packs * i64::from(line.pack_size);
                line.on_order += units;
                line.due.push((day + line.lead_time_days as u32, units));
            }
        }
    }
}
