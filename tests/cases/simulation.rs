//! The simulated lake: it holds what the simulator promises, and order and content predict more than recency and frequency.

use arrow::array::{ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use intentcast::lake::stores::Location;
use intentcast::metrics::auc;
use intentcast::simulation::{self, SimulateOptions, signal::Signal};
use std::path::Path;
use std::sync::LazyLock;

use crate::support::regression::auc_in_sample;

const DAYS_SIMULATED: u32 = 80;

/// A lake of 3000 users, 60 items and 80 days, simulated once for all tests of this file.
static LAKE: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    // On a new thread, because the first test already runs in a runtime.
    std::thread::spawn(simulated).join().unwrap()
});

fn start() -> chrono::NaiveDate {
    chrono::NaiveDate::from_ymd_opt(2026, 1, 1).unwrap()
}

fn simulated() -> tempfile::TempDir {
    let options = SimulateOptions {
        users: 3000,
        items: 60,
        days: DAYS_SIMULATED,
        seed: 11,
        faults: false,
        signal: Signal::Mixed,
        active_share: None,
        start: start(),
    };
    simulated_by(&options)
}

fn simulated_by(options: &SimulateOptions) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let to = Location::open(&folder.path().display().to_string(), &Default::default()).unwrap();
    let report = tokio::runtime::Runtime::new().unwrap().block_on(simulation::simulate(&to, options)).unwrap();
    assert!(report.purchases > 500 && report.events > 50_000, "{report}");
    folder
}

/// Opens a session with the lake and its truth, table by table.
async fn lake() -> SessionContext {
    opened(LAKE.path()).await
}

async fn opened(lake: &Path) -> SessionContext {
    let ctx = SessionContext::new();
    let folders = ["events", "users", "items", "promotions", "inventory"].map(|name| (name, name));
    for (name, folder) in [&folders[..], &[("truth", "truth/propensity"), ("demand", "truth/demand")]].concat() {
        let place = format!("{}/{folder}/", lake.display());
        ctx.register_parquet(name, place, ParquetReadOptions::default()).await.unwrap();
    }
    ctx
}

/// Returns the numbers of a query's only row.
async fn numbers(ctx: &SessionContext, sql: &str) -> Vec<f64> {
    let rows = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    let row = rows.iter().find(|batch| batch.num_rows() == 1).unwrap();
    let number = |column: &ArrayRef| cast(column, &DataType::Float64).unwrap().as_primitive::<Float64Type>().value(0);
    row.columns().iter().map(number).collect()
}

#[tokio::test]
async fn people_act_in_every_way_that_a_shop_records() {
    let ctx = lake().await;
    let of = async |sql: &str| numbers(&ctx, sql).await;
    let kinds = of("SELECT count(DISTINCT event_type), count(*) FILTER (WHERE event_type NOT IN \
                    ('view', 'click', 'search', 'favorite', 'cart', 'remove_from_cart', 'purchase', 'review')) \
                    FROM events")
    .await;
    assert_eq!(kinds, [8.0, 0.0]);
    let texts = of("SELECT count(*) FILTER (WHERE event_type = 'search' AND coalesce(query, '') = ''), \
                      count(*) FILTER (WHERE event_type = 'review' AND (coalesce(text, '') = '' OR rating IS NULL)), \
                      count(*) FILTER (WHERE event_type = 'view' AND coalesce(dwell_ms, 0) <= 0), \
                      count(DISTINCT query), count(DISTINCT text), count(DISTINCT rating) FROM events")
    .await;
    assert!(texts[..3] == [0.0; 3] && texts[3] > 20.0 && texts[4] >= 8.0 && texts[5] == 5.0, "{texts:?}");

    // Returned units were bought before, by the same user under this or an earlier id, and never exceed the purchase.
    let returns =
        of("WITH named AS (SELECT coalesce(u.canonical_user_id, e.user_id) AS person, e.item_id, e.ts, e.quantity \
                        FROM events e LEFT JOIN users u ON u.user_id = e.user_id WHERE event_type = 'purchase'), \
                      back AS (SELECT * FROM named WHERE quantity < 0), \
                      kept AS (SELECT b.person, b.ts, max(n.quantity) AS bought, max(-b.quantity) AS sent \
                        FROM back b LEFT JOIN named n ON n.person = b.person AND n.item_id = b.item_id AND n.ts < b.ts \
                        GROUP BY b.person, b.ts) \
                      SELECT count(*), count(*) FILTER (WHERE bought IS NULL OR sent > bought), \
                        (SELECT count(*) AS n FROM named WHERE quantity > 0) AS bought FROM kept")
        .await;
    assert!(returns[0] > 10.0 && returns[1] == 0.0, "{returns:?}");
    assert!(returns[0] / returns[2] < 0.08, "few purchases come back: {returns:?}");

    // A session is one visit of one person; funnels lead from viewing to buying within one session or over several.
    let sessions =
        of("WITH s AS (SELECT session_id, count(DISTINCT coalesce(user_id, '')) AS users, count(*) AS events, \
                         max(ts) - min(ts) AS took, min(ts) FILTER (WHERE event_type = 'view') AS viewed, \
                         min(ts) FILTER (WHERE event_type = 'purchase' AND quantity > 0) AS bought \
                         FROM events GROUP BY session_id) \
                       SELECT count(*), max(users), avg(events), count(*) FILTER (WHERE took > INTERVAL '1 day'), \
                         count(*) FILTER (WHERE viewed < bought), count(bought) FROM s")
        .await;
    assert!(sessions[0] > 5_000.0 && sessions[1] == 1.0 && sessions[2] > 1.5 && sessions[3] == 0.0, "{sessions:?}");
    assert!(sessions[4] > 0.9 * sessions[5], "who buys has looked first: {sessions:?}");
}

#[tokio::test]
async fn guests_have_no_id_or_one_that_ends_at_login() {
    let ctx = lake().await;
    let of = async |sql: &str| numbers(&ctx, sql).await;
    let nameless = of("SELECT count(*), count(*) FILTER (WHERE event_type = 'purchase') FROM events \
                       WHERE user_id IS NULL")
    .await;
    assert!(nameless.iter().all(|n| *n > 20.0), "{nameless:?}");
    let logins = of("WITH guests AS (SELECT * FROM users WHERE canonical_user_id IS NOT NULL), \
                       seen AS (SELECT g.user_id, bool_or(e.user_id = g.user_id) AS before, \
                         bool_or(e.user_id = g.canonical_user_id) AS after, \
                         bool_or(e.user_id = g.user_id AND e.ts >= g.signed_up_at \
                           OR e.user_id = g.canonical_user_id AND e.ts < g.signed_up_at) AS wrong \
                         FROM guests g JOIN events e ON e.user_id IN (g.user_id, g.canonical_user_id) GROUP BY g.user_id) \
                     SELECT count(*) FILTER (WHERE before AND after), count(*) FILTER (WHERE wrong), \
                       (SELECT count(*) AS n FROM guests WHERE substr(user_id, 1, 1) <> 'g' \
                         OR canonical_user_id <> concat('u', substr(user_id, 2))) AS misnamed FROM seen")
    .await;
    assert!(logins[0] > 50.0 && logins[1..] == [0.0, 0.0], "{logins:?}");
}

#[tokio::test]
async fn tastes_titles_prices_and_vectors_separate_categories() {
    let ctx = lake().await;
    let of = async |sql: &str| numbers(&ctx, sql).await;
    let tastes = of("WITH seen AS (SELECT e.user_id, i.category, count(*) AS n FROM events e \
                       JOIN items i ON i.item_id = e.item_id WHERE e.event_type = 'view' AND e.user_id IS NOT NULL \
                       GROUP BY e.user_id, i.category), \
                     users AS (SELECT user_id, sum(n) AS views, max(n) AS most FROM seen GROUP BY user_id) \
                     SELECT count(*), avg(CAST(most AS DOUBLE) / views), (SELECT count(DISTINCT category) AS n FROM items) AS categories \
                     FROM users WHERE views >= 20")
    .await;
    // If the ten categories were equally likely, the most frequent one would have about a fifth of twenty views.
    assert!(tastes[0] > 200.0 && tastes[2] == 10.0 && tastes[1] > 0.4, "{tastes:?}");

    let items = of("SELECT count(*), count(DISTINCT title), count(DISTINCT array_length(image_vector)), \
                      min(array_length(image_vector)), min(price), count(*) FILTER (WHERE strpos(title, brand) = 0 \
                        OR strpos(title, split_part(category, '/', 3)) = 0) FROM items")
    .await;
    assert!(items[0] == 60.0 && items[1] > 40.0 && items[2..4] == [1.0, 16.0] && items[4] > 0.0, "{items:?}");
    assert_eq!(items[5], 0.0, "titles name brand and kind");
    let likeness = of("WITH numbers AS (SELECT item_id, category, unnest(image_vector) AS x, \
                         unnest(generate_series(1, 16)) AS at FROM items), \
                       pairs AS (SELECT a.item_id, b.item_id AS other, a.category = b.category AS alike, \
                         sum(CAST(a.x AS DOUBLE) * b.x) AS cosine FROM numbers a JOIN numbers b ON a.at = b.at \
                         WHERE a.item_id < b.item_id GROUP BY a.item_id, b.item_id, a.category = b.category) \
                       SELECT avg(CASE WHEN alike THEN cosine END), avg(CASE WHEN NOT alike THEN cosine END) FROM pairs")
    .await;
    assert!(likeness[0] > 0.6 && likeness[1] < 0.3, "{likeness:?}");
}

#[tokio::test]
async fn demand_has_weekdays_trends_promotions_and_lifetimes() {
    let ctx = lake().await;
    let of = async |sql: &str| numbers(&ctx, sql).await;
    // 77 days are eleven weeks. Saturdays have a third more visits than Tuesdays.
    let week = of("WITH days AS (SELECT date_trunc('day', ts) AS day, count(*) AS n FROM events GROUP BY 1) \
                   SELECT avg(CASE WHEN date_part('dow', day) = 6 THEN n END), \
                     avg(CASE WHEN date_part('dow', day) = 2 THEN n END) FROM days \
                   WHERE day < TIMESTAMP '2026-03-19T00:00:00Z'")
    .await;
    assert!(week[0] > 1.2 * week[1] && week[0] < 1.6 * week[1], "{week:?}");

    let promoted = of("WITH days AS (SELECT d.item_id, d.rate, d.date, p.price IS NOT NULL AS promoted FROM demand d \
                         LEFT JOIN promotions p ON p.item_id = d.item_id AND d.date >= p.starts_on AND d.date <= p.ends_on \
                         WHERE d.rate > 0), \
                       items AS (SELECT item_id, avg(rate) FILTER (WHERE promoted) / avg(rate) FILTER (WHERE NOT promoted) \
                         AS pull FROM days GROUP BY item_id) SELECT count(pull), avg(pull) FROM items")
    .await;
    assert!(promoted[0] > 10.0 && promoted[1] > 1.4, "{promoted:?}");
    let prices = of("SELECT count(*), count(*) FILTER (WHERE e.price <> p.price), \
                       count(*) FILTER (WHERE p.price >= i.price) FROM events e \
                     JOIN promotions p ON p.item_id = e.item_id AND e.ts >= p.starts_on AND e.ts < p.ends_on + INTERVAL '1 day' \
                     JOIN items i ON i.item_id = e.item_id WHERE e.event_type = 'view'")
    .await;
    assert!(prices[0] > 500.0 && prices[1..] == [0.0, 0.0], "{prices:?}");

    let lives = of("WITH life AS (SELECT item_id, min(date) FILTER (WHERE rate > 0) AS first, \
                      max(date) FILTER (WHERE rate > 0) AS last, min(date) AS opened, max(date) AS closed \
                      FROM demand GROUP BY item_id), \
                    sold AS (SELECT item_id, min(CAST(ts AS DATE)) AS first, max(CAST(ts AS DATE)) AS last FROM events \
                      WHERE event_type = 'purchase' AND quantity > 0 GROUP BY item_id) \
                    SELECT count(*) FILTER (WHERE l.first > opened), count(*) FILTER (WHERE l.last < closed), \
                      count(*) FILTER (WHERE s.first < l.first OR s.last > l.last) \
                    FROM life l LEFT JOIN sold s ON s.item_id = l.item_id")
    .await;
    assert!(lives[0] > 0.0 && lives[1] > 0.0 && lives[2] == 0.0, "{lives:?}");

    // The same people want two items of one category and brand: on the same weekday and without a promotion, only their trends
    // separate their rates over ten weeks.
    let trends = of("WITH quiet AS (SELECT d.item_id, d.date, d.rate, i.category, i.brand FROM demand d \
                       JOIN items i ON i.item_id = d.item_id LEFT ANTI JOIN promotions p \
                       ON p.item_id = d.item_id AND d.date >= p.starts_on AND d.date <= p.ends_on WHERE d.rate > 0), \
                     pairs AS (SELECT a.item_id, b.item_id AS other, a.date, ln(a.rate / b.rate) AS apart FROM quiet a \
                       JOIN quiet b ON a.category = b.category AND a.brand = b.brand AND a.date = b.date \
                       WHERE a.item_id < b.item_id) \
                     SELECT count(*), avg(abs(l.apart - e.apart)) FROM pairs e \
                     JOIN pairs l ON l.item_id = e.item_id AND l.other = e.other \
                     WHERE e.date = DATE '2026-01-01' AND l.date = DATE '2026-03-12'")
    .await;
    assert!(trends[0] > 5.0 && trends[1] > 0.1, "{trends:?}");
}

#[tokio::test]
async fn empty_shelves_hide_demand_from_the_events() {
    let ctx = lake().await;
    let of = async |sql: &str| numbers(&ctx, sql).await;
    let sold = of("WITH sold AS (SELECT item_id, CAST(ts AS DATE) AS date, sum(quantity) AS units FROM events \
                     WHERE event_type = 'purchase' AND quantity > 0 GROUP BY 1, 2) \
                   SELECT count(*) FILTER (WHERE d.units_sold <> coalesce(s.units, 0)), \
                     count(*) FILTER (WHERE d.units_wanted > d.units_sold), \
                     count(*) FILTER (WHERE d.in_stock <> (d.units_wanted = d.units_sold)), \
                     sum(d.units_wanted), sum(d.rate) \
                   FROM demand d LEFT JOIN sold s ON s.item_id = d.item_id AND s.date = d.date")
    .await;
    assert!(sold[0] == 0.0 && sold[1] > 10.0 && sold[2] == 0.0, "{sold:?}");
    assert!((sold[3] / sold[4] - 1.0).abs() < 0.05, "what is wanted is what the rates say: {sold:?}");
    // Every item on sale has its stock each morning, and the shop reorders in packs of different sizes.
    let stock =
        of("SELECT count(*), count(DISTINCT item_id), min(on_hand), max(on_order), count(DISTINCT pack_size), \
                      count(*) FILTER (WHERE min_order_quantity % pack_size <> 0 OR unit_cost <= 0), \
                      count(DISTINCT lead_time_days) FROM inventory")
        .await;
    assert!(stock[0] > 60.0 * 70.0 && stock[1] == 60.0 && stock[2] == 0.0 && stock[3] > 0.0, "{stock:?}");
    assert!(stock[4] > 2.0 && stock[5] == 0.0 && stock[6] > 5.0, "{stock:?}");
}

/// Days of the truth with at least four weeks before and one week after.
const DAYS: [u32; 6] = [35, 42, 49, 56, 63, 70];

#[tokio::test]
async fn the_propensity_knows_more_than_recency_and_frequency() {
    let (ctx, start) = (lake().await, start());
    let days = ctx.sql("SELECT count(DISTINCT as_of) FROM truth").await.unwrap().collect().await.unwrap();
    assert_eq!(
        days[0].column(0).as_primitive::<Int64Type>().value(0),
        i64::from(DAYS_SIMULATED),
        "a truth for every day"
    );

    let (mut x, mut y, mut truth) = (Vec::new(), Vec::new(), Vec::new());
    for day in DAYS {
        let t = start + chrono::Days::new(day.into());
        let sql = format!(
            "SELECT CAST(t.p_purchase_7d AS DOUBLE), \
               ln(1 + coalesce(date_part('epoch', TIMESTAMP '{t}') - date_part('epoch', max(e.ts) FILTER (WHERE e.ts < TIMESTAMP '{t}')), 9e6)), \
               ln(1 + coalesce(date_part('epoch', TIMESTAMP '{t}') - date_part('epoch', max(e.ts) FILTER (WHERE e.ts < TIMESTAMP '{t}' AND e.event_type = 'purchase')), 9e6)), \
               ln(CAST(1 + count(e.ts) FILTER (WHERE e.ts < TIMESTAMP '{t}' AND e.ts >= TIMESTAMP '{t}' - INTERVAL '7 days') AS DOUBLE)), \
               ln(CAST(1 + count(e.ts) FILTER (WHERE e.ts < TIMESTAMP '{t}' AND e.ts >= TIMESTAMP '{t}' - INTERVAL '28 days') AS DOUBLE)), \
               ln(CAST(1 + count(e.ts) FILTER (WHERE e.ts < TIMESTAMP '{t}' AND e.event_type = 'purchase') AS DOUBLE)), \
               count(e.ts) FILTER (WHERE e.ts >= TIMESTAMP '{t}' AND e.ts < TIMESTAMP '{t}' + INTERVAL '7 days' AND e.event_type = 'purchase' AND e.quantity > 0) \
             FROM truth t LEFT JOIN events e ON t.user_id = e.user_id WHERE t.as_of = DATE '{t}' GROUP BY t.user_id, t.p_purchase_7d"
        );
        for batch in ctx.sql(&sql).await.unwrap().collect().await.unwrap() {
            let columns: Vec<_> =
                (0..6).map(|c| batch.column(c).as_primitive::<Float64Type>().values().to_vec()).collect();
            let bought = batch.column(6).as_primitive::<Int64Type>().values();
            for (row, bought) in bought.iter().enumerate() {
                truth.push(columns[0][row]);
                x.push((1..6).map(|c| columns[c][row]).collect::<Vec<f64>>());
                y.push(*bought > 0);
            }
        }
    }
    let baseline = auc_in_sample(x, &y);
    let ceiling = auc(&truth, &y).unwrap();
    println!(
        "propensity {ceiling:.4}, recency-frequency {baseline:.4}, {} purchases",
        y.iter().filter(|b| **b).count()
    );
    assert!(ceiling >= baseline + 0.05, "propensity {ceiling}, recency-frequency {baseline}");
}

/// Compares visits with a search of users who buy within ten days with those of users who do not: how much more often a viewed
/// item has an appealing word in its title, an appealing picture, and the search before every other event.
const TELLS: &str = "WITH looks AS (
        SELECT item_id, CASE WHEN split_part(replace(title, brand || ' ', ''), ' ', 1)
            IN ('classic', 'light', 'sturdy', 'compact', 'soft', 'bright') THEN 1.0 ELSE 0.0 END AS word,
            CASE WHEN image_vector[1] - image_vector[2] + image_vector[3] - image_vector[4] + image_vector[5]
                - image_vector[6] + image_vector[7] - image_vector[8] > 0 THEN 1.0 ELSE 0.0 END AS picture
        FROM items
    ),
    visits AS (
        SELECT e.user_id, e.session_id, min(e.ts) AS ts, avg(l.word) AS word, avg(l.picture) AS picture,
            CASE WHEN min(CASE WHEN e.event_type = 'search' THEN e.ts END) = min(e.ts) THEN 1.0 ELSE 0.0 END AS first
        FROM events e LEFT JOIN looks l ON l.item_id = e.item_id AND e.event_type IN ('view', 'cart', 'favorite')
        WHERE e.user_id IS NOT NULL
        GROUP BY e.user_id, e.session_id
        HAVING bool_or(e.event_type = 'search')
    ),
    bought AS (SELECT user_id, ts FROM events WHERE event_type = 'purchase' AND quantity > 0),
    told AS (
        SELECT v.session_id, v.word, v.picture, v.first, bool_or(coalesce(b.ts > v.ts
            AND b.ts < v.ts + INTERVAL '10 days', false)) AS buys
        FROM visits v LEFT JOIN bought b ON b.user_id = v.user_id
        GROUP BY v.session_id, v.word, v.picture, v.first
    )
    SELECT avg(word) FILTER (WHERE buys) - avg(word) FILTER (WHERE NOT buys),
        avg(picture) FILTER (WHERE buys) - avg(picture) FILTER (WHERE NOT buys),
        avg(first) FILTER (WHERE buys) - avg(first) FILTER (WHERE NOT buys), count(*)
    FROM told";

/// Share of all users who have an event on an average day.
const ACTIVE: &str = "SELECT avg(CAST(users AS DOUBLE)) / (SELECT count(*) FROM users) FROM (
    SELECT CAST(ts AS DATE) AS day, count(DISTINCT user_id) AS users FROM events WHERE user_id IS NOT NULL GROUP BY 1)";

#[test]
fn active_share_is_the_share_of_users_who_come_on_a_day() {
    for (chosen, share) in [(None, 0.105), (Some(0.03), 0.03), (Some(0.2), 0.2)] {
        let options = SimulateOptions {
            users: 4000,
            items: 100,
            days: 60,
            seed: 4,
            faults: false,
            signal: Signal::Mixed,
            active_share: chosen,
            start: start(),
        };
        let folder = tempfile::tempdir().unwrap();
        let to = Location::open(&folder.path().display().to_string(), &Default::default()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(simulation::simulate(&to, &options)).unwrap();
        let found = runtime.block_on(async { numbers(&opened(folder.path()).await, ACTIVE).await })[0];
        assert!((found / share - 1.0).abs() < 0.15, "{chosen:?}: {found}");
    }
}

#[test]
fn a_taste_shows_only_in_the_modality_of_signal() {
    for signal in [Signal::Text, Signal::Image, Signal::Sequence] {
        let (users, items, days, seed, faults) = (3000, 300, 60, 4, false);
        let lake = simulated_by(&SimulateOptions {
            users,
            items,
            days,
            seed,
            faults,
            signal,
            active_share: None,
            start: start(),
        });
        let told = tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(async { numbers(&opened(lake.path()).await, TELLS).await });
        assert!(told[3] > 1000.0, "{signal:?}: {told:?}");
        let at = match signal {
            Signal::Text => 0,
            Signal::Image => 1,
            Signal::Sequence | Signal::Mixed => 2,
        };
        for (tell, &difference) in told[..3].iter().enumerate() {
            assert_eq!(difference.abs() > 0.2, tell == at, "{signal:?}: {told:?}");
        }
    }
}
