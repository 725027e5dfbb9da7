//! The risk and the reorder point of sql/tables/replenishment.sql against simulated demand.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Gamma, Poisson};

use crate::support::replenish::{Item, LEVELS, lines};

const DRAWS: usize = 4000;

/// Draws lead-time demand: Poisson, or Poisson of a gamma-distributed rate (negative binomial) where `shape` is finite.
fn draw(random: &mut ChaCha8Rng, rate: f64, shape: f64) -> f64 {
    let rate = if shape.is_finite() { Gamma::new(shape, rate / shape).unwrap().sample(random) } else { rate };
    if rate > 0.0 { Poisson::new(rate).unwrap().sample(random) } else { 0.0 }
}

/// Makes items with a right forecast and random positions, and draws whether each runs out.
fn simulated(random: &mut ChaCha8Rng, distribution: usize, items: usize) -> Vec<(Item, bool)> {
    let rate = (0.02f64.ln() + random.random::<f64>() * (200.0f64 / 0.02).ln()).exp();
    let shape = [f64::INFINITY, 2.0, 0.5][distribution % 3];
    let mut demand: Vec<f64> = (0..DRAWS).map(|_| draw(random, rate, shape)).collect();
    demand.sort_by(f64::total_cmp);
    // Networks give fractional quantiles, which are near the whole ones.
    let shift = if distribution % 2 == 1 && rate >= 10.0 { random.random::<f64>() - 0.5 } else { 0.0 };
    let quantile = |level: f64| demand[((level * DRAWS as f64).ceil() as usize).clamp(1, DRAWS) - 1];
    let mut found = Vec::new();
    for _ in 0..items {
        let position = quantile(random.random::<f64>().min(0.999));
        let item = Item {
            on_hand: position,
            on_order: 0.0,
            lead_time_days: 7.0,
            pack_size: 1.0,
            min_order_quantity: 0.0,
            service_level: 0.95,
            mean: demand.iter().sum::<f64>() / DRAWS as f64,
            quantiles: LEVELS.map(|level| (quantile(level) + shift).max(0.0)),
        };
        found.push((item, draw(random, rate, shape) > position));
    }
    found
}

/// Checks that of the items with a risk near p, a share p runs out: within three standard errors, and two points for reading a whole
/// distribution off seven quantiles.
#[tokio::test]
async fn items_run_out_as_often_as_their_risk_says() {
    let seed = 20_261_201;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let simulated: Vec<(Item, bool)> = (0..150).flat_map(|at| simulated(&mut random, at, 30)).collect();
    let items: Vec<Item> = simulated.iter().map(|(item, _)| item.clone()).collect();
    let risks: Vec<f64> = lines(&items, 1).await.iter().map(|line| line.stock_out_risk).collect();
    assert!(risks.iter().all(|risk| (0.0..=1.0).contains(risk)));
    let bounds = [0.0, 0.01, 0.03, 0.07, 0.15, 0.3, 0.5, 0.7, 0.9, 1.01];
    for bin in bounds.windows(2) {
        let inside: Vec<usize> = (0..risks.len()).filter(|at| (bin[0]..bin[1]).contains(&risks[*at])).collect();
        let count = inside.len() as f64;
        assert!(count >= 30.0, "risk {bin:?}: {count} items");
        let promised = inside.iter().map(|at| risks[*at]).sum::<f64>() / count;
        let happened = inside.iter().filter(|at| simulated[**at].1).count() as f64 / count;
        let error = 3.0 * (promised * (1.0 - promised) / count).sqrt() + 0.02 * (promised * (1.0 - promised) * 4.0);
        println!("risk {:.2} to {:.2}: {count:4} items, promised {promised:.4}, ran out {happened:.4}", bin[0], bin[1]);
        assert!(
            (promised - happened).abs() <= error,
            "risk {bin:?}: promised {promised}, ran out {happened}, seed {seed}"
        );
    }
}

fn item(on_hand: f64, service_level: f64, quantiles: [f64; 7]) -> Item {
    Item {
        on_hand,
        on_order: 0.0,
        lead_time_days: 7.0,
        pack_size: 1.0,
        min_order_quantity: 0.0,
        service_level,
        mean: quantiles[3].max(0.5),
        quantiles,
    }
}

#[tokio::test]
async fn more_stock_is_less_risk_and_the_reorder_point_keeps_its_promise() {
    let forecasts = [
        [0.0, 0.0, 0.0, 1.0, 1.0, 2.0, 3.0],
        [0.3, 0.7, 1.6, 3.1, 5.2, 8.0, 9.9],
        [40.0, 48.0, 62.0, 80.0, 101.0, 122.0, 137.0],
        [0.0; 7],
    ];
    let levels = [0.03, 0.2, 0.5, 0.8, 0.93, 0.99];
    for quantiles in forecasts {
        let stocked: Vec<Item> = (0..160).map(|on_hand| item(f64::from(on_hand), 0.95, quantiles)).collect();
        let risks: Vec<f64> = lines(&stocked, 1).await.iter().map(|line| line.stock_out_risk).collect();
        assert!(risks.windows(2).all(|pair| pair[0] >= pair[1]), "{quantiles:?}: {risks:?}");
        // Where the upper quantiles are equal, nothing says how far the tail goes.
        let has_tail = quantiles[6] > quantiles[5];
        for level in levels.into_iter().filter(|level| has_tail || *level <= 0.95) {
            let point = lines(&[item(0.0, level, quantiles)], 1).await[0].reorder_point;
            let at_point = lines(&[item(point, level, quantiles)], 1).await[0].stock_out_risk;
            assert!(at_point <= 1.0 - level + 1e-9, "{quantiles:?}, {level}: {at_point} at {point}");
        }
    }
}

/// Fractional quantiles, as networks give them, are read where the position is, however close they are.
#[tokio::test]
async fn close_fractional_quantiles_are_read_between() {
    let close = Item { mean: 0.85, ..item(0.0, 0.95, [0.05, 0.12, 0.3, 0.7, 1.2, 1.9, 2.4]) };
    let risk = lines(std::slice::from_ref(&close), 1).await[0].stock_out_risk;
    assert!((risk - 0.5625).abs() < 1e-9, "0.6 is three quarters of the way from q25 to q50: {risk}");
    // Markov's inequality: of a mean of 0.3, at least 0.7 of the outcomes are 0.
    let rare = Item { mean: 0.3, ..close };
    assert!((lines(&[rare], 1).await[0].stock_out_risk - 0.3).abs() < 1e-9);
}

#[tokio::test]
async fn an_item_at_its_reorder_point_orders_at_least_one_pack() {
    let at_point = |pack_size: f64, min_order_quantity: f64| Item {
        mean: 0.0,
        pack_size,
        min_order_quantity,
        ..item(3.0, 0.95, [0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 3.0])
    };
    for (pack_size, minimum, expected) in [(1.0, 0.0, 1.0), (6.0, 0.0, 6.0), (1_000_000.0, 1_000_001.0, 2_000_000.0)] {
        let line = lines(&[at_point(pack_size, minimum)], 1).await[0];
        assert_eq!((line.reorder_point, line.order_quantity), (3.0, expected));
    }
}

#[tokio::test]
async fn negative_stock_has_run_out() {
    let line = lines(&[item(-3.0, 0.95, [0.0; 7])], 1).await[0];
    assert_eq!(line.stock_out_risk, 1.0);
}
