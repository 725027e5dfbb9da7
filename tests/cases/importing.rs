//! Imports of hand-written rows in publishers' formats, from the command line to canonical rows; lakes with their own SQL.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::intentcast;
use crate::support::lakes::write;

/// A folder for the files and lakes of one test.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn import(&self, name: &str, files: &[(&str, &[u8])], more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
        command.args(["import", name, "--to", &self.path("lake")]).args(more);
        for (file, bytes) in files {
            std::fs::write(self.path(file), bytes).unwrap();
            command.arg(self.path(file));
        }
        command.output().unwrap()
    }

    /// Returns the rows of a query over the lake. The lake's own lake.toml supplies its settings.
    fn sql(&self, query: &str) -> Vec<String> {
        lines(&done(&intentcast(&["sql", "--lake", &self.path("lake"), "--format", "csv", "-c", query])))
    }

    /// Returns every file below the lake.
    fn files(&self) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.0.path().join("lake")]);
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().map(|e| e.unwrap().path()) {
                if entry.is_dir() { folders.push(entry) } else { found.push(entry) }
            }
        }
        found
    }
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(output: &Output, code: i32) -> String {
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{errors}");
    errors
}

/// Returns the lines without the header.
fn lines(csv: &str) -> Vec<String> {
    csv.lines().skip(1).map(String::from).collect()
}

/// Imports and runs one query; returns the report and the rows.
fn import(name: &str, files: &[(&str, &[u8])], query: &str) -> (String, Vec<String>) {
    let place = Place::new();
    let report = done(&place.import(name, files, &[]));
    (report, place.sql(query))
}

const EVENTS: &str =
    "SELECT user_id, session_id, ts, event_type, item_id, quantity, price FROM events ORDER BY ts, item_id";
const ITEMS: &str = "SELECT item_id, title, category, brand, price FROM items ORDER BY item_id";

#[test]
fn taobao_counts_cut_lines_and_splits_by_beijing_days() {
    // Midnight in Beijing is between the first two lines. A truncated timestamp is refused.
    let mut text = String::from(
        "1,22,33,pv,1511539199\n1,22,34,buy,1511539200\n2,22,34,fav,1511539201\n3,22,34,cart,1511539202\n",
    );
    (0..300).for_each(|user| text.push_str(&format!("{user},24,35,pv,1511550000\n")));
    text.push_str("4,22,34,pv,15\n4,22,34,gaze,1511550000\n2,23,33,cart");
    let place = Place::new();
    let report = done(&place.import("taobao", &[("UserBehavior.csv", text.as_bytes())], &[]));
    assert!(
        report.contains("307 rows read, 304 events on 2 days (2017-11-24 to 2017-11-25, Asia/Shanghai)"),
        "{report}"
    );
    for reason in ["no readable time", "unknown event type", "expected 5 fields, got 4"] {
        assert!(report.contains(&format!("skipped: 1 rows: {reason}")), "{report}");
    }
    let rows = place.sql("SELECT _dt, user_id, ts, event_type FROM events WHERE item_id = '22' ORDER BY ts");
    let expected = [
        "2017-11-24,1,2017-11-24T15:59:59,view",
        "2017-11-25,1,2017-11-24T16:00:00,purchase",
        "2017-11-25,2,2017-11-24T16:00:01,favorite",
        "2017-11-25,3,2017-11-24T16:00:02,cart",
    ];
    assert_eq!(rows, expected);
    // An item with two categories gets the one that most lines name.
    assert_eq!(place.sql(ITEMS), ["22,,34,,", "24,,35,,"]);
}

#[test]
fn order_lines_keep_returns_guests_and_uk_time_also_packed() {
    let text = "Invoice,StockCode,Description,Quantity,InvoiceDate,Price,Customer ID,Country\n\
                C1,A,MUG,-2,2010-07-01 09:00:00,3.5,13085.0,United Kingdom\n\
                2,A, MUG RED ,1,2010-07-01 09:01:00,3.5,,United Kingdom\n\
                3,A,MUG RED,1,2010-07-01 09:02:00,0.0,7,\"Channel\nIslands\"\n\
                4,A ,MUG RED,1,2010-10-31 01:30:00,4,13085,EIRE\n\
                5,B,,1,2010-12-01 00:30:00,4,13085,EIRE\n";
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gz.write_all(text.as_bytes()).unwrap();
    let packed = [("a.csv.gz", gz.finish().unwrap()), ("b.csv.zst", zstd::encode_all(text.as_bytes(), 1).unwrap())];
    for (name, bytes) in &packed {
        let place = Place::new();
        let report = done(&place.import("online-retail-ii", &[(name, bytes)], &[]));
        assert!(report.contains("5 rows read, 5 events on 3 days"), "{report}");
        let expected = [
            "13085,C1,2010-07-01T08:00:00,purchase,A,-2,3.5",
            ",2,2010-07-01T08:01:00,purchase,A,1,3.5",
            "7,3,2010-07-01T08:02:00,purchase,A,1,0.0",
            // The clock shows 01:30 twice in that night; the first time is summer time.
            "13085,4,2010-10-31T00:30:00,purchase,A,1,4.0",
            "13085,5,2010-12-01T00:30:00,purchase,B,1,4.0",
        ];
        assert_eq!(place.sql(EVENTS), expected);
        assert_eq!(place.sql(ITEMS), ["A,MUG RED,,,3.5", "B,,,,4.0"]);
        // A customer is known from the first order on.
        let users = place.sql("SELECT user_id, country, signed_up_at FROM users ORDER BY user_id");
        let expected = ["13085,EIRE,2010-07-01T08:00:00", "7,\"Channel", "Islands\",2010-07-01T08:02:00"];
        assert_eq!(users, expected);
    }
}

#[test]
fn cdnow_reads_master_and_sample_and_skips_a_line_of_names() {
    let master =
        b" customer_id  date number_of_cds  dollar_value\n 00001 19970101  2   11.00\n 00002 19970101  0    0.00\n";
    let sample = b" 00001 0009 19970102  1   5.00\n";
    let (report, rows) = import("cdnow", &[("master.txt", master), ("sample.txt", sample)], EVENTS);
    assert!(report.contains("3 rows read, 3 events on 2 days") && !report.contains("skipped"), "{report}");
    let expected = [
        "00001,,1997-01-01T00:00:00,purchase,cd,2,5.5",
        "00002,,1997-01-01T00:00:00,purchase,cd,0,",
        "00001,,1997-01-02T00:00:00,purchase,cd,1,5.0",
    ];
    assert_eq!(rows, expected);
}

#[test]
fn tmall_days_get_the_year_and_repeats_stay() {
    let text = b"user_id,brand_id,type,visit_datetime\n1,2,0,6-4\n1,2,0,6-4\n1,2,1,11-12\n1,2,0,13-40\n";
    let (report, rows) = import("tmall", &[("t.csv", text)], EVENTS);
    assert!(report.contains("skipped: 1 rows: no readable time"), "{report}");
    let click = "1,,2014-06-04T00:00:00,click,2,,";
    assert_eq!(rows, [click, click, "1,,2014-11-12T00:00:00,purchase,2,,"]);
}

#[test]
fn retailrocket_comes_with_and_without_the_added_column() {
    let original = "timestamp,visitorid,event,itemid,transactionid\n1433193132535,9,addtocart,7,\n";
    let copy = "timestamp,visitorid,event,itemid,transactionid,datetime\n1433193132535,9,addtocart,7,,2015-06-01 21:12:12.535\n";
    for text in [original, copy] {
        let (_, rows) = import("retailrocket", &[("r.csv", text.as_bytes())], EVENTS);
        assert_eq!(rows, ["9,,2015-06-01T21:12:12.535,cart,7,,"]);
    }
}

#[test]
fn rees46_takes_each_fact_by_majority() {
    let mut text =
        String::from("event_time,event_type,product_id,category_id,category_code,brand,price,user_id,user_session\n");
    for facts in ["a.b,acme,1.25", ",acme,1.25", "a.b,,0", "a.c,bolt,1.5"] {
        text.push_str(&format!("2019-10-01 00:00:00 UTC,view,5,1,{facts},3,s\n"));
    }
    text.push_str("2019-10-01 00:00:00 UTC,vie");
    let place = Place::new();
    let report = done(&place.import("rees46", &[("2019-Oct.csv", text.as_bytes())], &[]));
    assert!(report.contains("4 events") && report.contains("1 rows: expected 9 fields, got 2"), "{report}");
    assert_eq!(place.sql(ITEMS), ["5,,a/b,acme,1.25"]);
    assert_eq!(place.sql("SELECT session_id, price FROM events WHERE price > 1.3"), ["s,1.5"]);
}

#[test]
fn complete_journey_derives_prices_and_joins_categories() {
    let lines = b"household_id,store_id,basket_id,product_id,quantity,sales_value,retail_disc,coupon_disc,coupon_match_disc,week,transaction_timestamp\n\
        1,1,2,3,2.0,5.0,0,0,0,1,2017-01-01 12:30:27\n1,1,2,3,0.0,0.0,0,0,0,1,2017-01-01 12:30:28\n";
    let products = b"product_id,manufacturer_id,department,brand,product_category,product_type,package_size\n\
        3,9,D,National,C,T,22 LB\n4,9,E,Private,,,\n";
    let place = Place::new();
    // The columns decide which file is which.
    let report = done(&place.import("complete-journey", &[("p.csv", products), ("t.csv", lines)], &[]));
    assert!(report.contains("2 events on 1 days") && report.contains("2 rows of items"), "{report}");
    assert_eq!(place.sql(ITEMS), ["3,,D/C/T,National,", "4,,E,Private,"]);
    assert_eq!(
        place.sql(EVENTS),
        ["1,2,2017-01-01T12:30:27,purchase,3,2,2.5", "1,2,2017-01-01T12:30:28,purchase,3,0,"]
    );
    let own = Place::new();
    let errors = refused(&own.import("complete-journey", &[("p.csv", products)], &[]), 3);
    assert!(errors.contains("no events of complete-journey") && own.files().is_empty(), "{errors}");
}

#[test]
fn reviews_keep_rating_and_text() {
    let text = br#"{"overall": 4.0, "reviewerID": "R", "asin": "B", "unixReviewTime": 1370000000, "reviewText": "fine, \"good\"", "style": {"Size:": "7"}}
{"overall": 5.0, "reviewerID": "R", "asin": "C", "unixReviewTime": 1370000001, "verified": true}
"#;
    let query = "SELECT user_id, event_type, item_id, rating, text FROM events ORDER BY ts";
    let (_, rows) = import("amazon-all-beauty", &[("r.json", text)], query);
    assert_eq!(rows, ["R,review,B,4,\"fine, \"\"good\"\"\"", "R,review,C,5,"]);
}

#[test]
fn a_wrong_file_or_name_is_refused_with_what_to_check() {
    let place = Place::new();
    let errors = refused(&place.import("rees46", &[("x.csv", b"event_time,price\n1,2\n")], &[]), 3);
    assert!(
        errors.contains(&place.path("x.csv")) && errors.contains("no column event_type, product_id, user_id"),
        "{errors}"
    );
    assert!(errors.contains("hint: check the name of the data set and the files"), "{errors}");
    let errors = refused(&place.import("nonsense", &[("x.csv", b"a\n")], &[]), 2);
    assert!(
        errors.contains("unknown data set \"nonsense\"") && errors.contains("hint: known: taobao, tmall"),
        "{errors}"
    );
    assert!(place.files().is_empty());
}

#[test]
fn a_failed_import_keeps_nothing_and_a_second_one_is_refused() {
    let place = Place::new();
    let mut text: String =
        (0..100_000).map(|i| format!("{i},{},{},pv,{}\n", i % 50, i % 37, 1_511_544_070 + i)).collect();
    let packed = zstd::encode_all(text.as_bytes(), 1).unwrap();
    // Too little memory for the whole import, so days are written long before its end.
    let little = ["--set", "engine.memory_bytes_max=16000000", "--set", "engine.partitions=1"];
    let cut = &packed[..packed.len() * 3 / 4];
    let errors = refused(&place.import("taobao", &[("a.csv.zst", cut)], &little), 3);
    assert!(errors.contains(&place.path("a.csv.zst")) && errors.contains("hint: fetch the file again"), "{errors}");
    assert_eq!(place.files(), Vec::<PathBuf>::new());

    text.push_str(&"1,2,3,pv,soon\n".repeat(1_100));
    let errors = refused(&place.import("taobao", &[("a.csv", text.as_bytes())], &[]), 3);
    assert!(
        errors.contains("1100 of 101100 rows") && errors.contains("unix_seconds does not convert to Int64: 1100"),
        "{errors}"
    );
    assert_eq!(place.files(), Vec::<PathBuf>::new());

    done(&place.import("taobao", &[("a.csv.zst", &packed)], &little));
    assert_eq!(place.sql("SELECT count(*) FROM events"), ["100000"]);
    let files = place.files();
    assert!(files.iter().filter(|f| f.display().to_string().contains("dt=2017-11-25")).count() > 1, "{files:?}");
    let errors = refused(&place.import("taobao", &[("a.csv.zst", &packed)], &[]), 2);
    assert!(
        errors.contains("lake.toml exists already")
            && errors.contains("hint: import all files of the data set at once"),
        "{errors}"
    );
    std::fs::remove_file(place.path("lake/lake.toml")).unwrap();
    let errors = refused(&place.import("taobao", &[("a.csv.zst", &packed)], &[]), 2);
    assert!(errors.contains("lake/events/ exists already"), "{errors}");
    assert_eq!(place.files().len(), files.len() - 1);
}

/// Selects the settings, and the `local_day` of an instant just after midnight in Beijing.
const DAYS: &str = "SELECT local_day(ts), partition_kind(), arrival_kind() FROM events";

#[test]
fn lake_toml_supplies_settings_and_the_user_wins() {
    let place = Place::new();
    done(&place.import("taobao", &[("a.csv", b"1,22,33,pv,1511539200\n")], &[]));
    let written = std::fs::read_to_string(place.path("lake/lake.toml")).unwrap();
    assert!(written.ends_with(
        "[lake]\nname = \"taobao\"\ntime_zone = \"Asia/Shanghai\"\npartition = \"event_date_local\"\narrival = \"none\"\n"
    ));
    assert_eq!(place.sql(DAYS), ["2017-11-25,event_date_local,none"]);

    let lake = place.path("lake");
    let asked = |more: &[&str]| intentcast(&[more, &["sql", "--lake", &lake, "--format", "csv", "-c", DAYS]].concat());
    // A setting that equals the default still counts as set.
    let rows = done(&asked(&["--set", "lake.time_zone=UTC"]));
    assert_eq!(lines(&rows), ["2017-11-24,event_date_local,none"]);
    let file = place.path("own.toml");
    std::fs::write(&file, "[lake]\narrival = \"ingest_date\"\n").unwrap();
    assert_eq!(lines(&done(&asked(&["--config", &file]))), ["2017-11-25,event_date_local,ingest_date"]);

    let (output, date) = (place.path("out"), "2017-11-26");
    let plan = done(&intentcast(&["nightly", "--lake", &lake, "--output", &output, "--date", date, "--dry-run"]));
    assert!(plan.contains("reads 1 new event files"), "{plan}");

    std::fs::write(place.path("lake/lake.toml"), "[lake]\nname = \"taobao\"\nzone = \"UTC\"\n").unwrap();
    let errors = refused(&asked(&[]), 3);
    assert!(errors.contains(&place.path("lake/lake.toml")) && errors.contains("zone"), "{errors}");
    let errors = refused(&intentcast(&["sql", "--lake", &lake, "--set", "lake.name=tabao", "-c", DAYS]), 3);
    assert!(errors.contains("lake.toml"), "{errors}");
    std::fs::remove_file(place.path("lake/lake.toml")).unwrap();
    let errors = refused(&intentcast(&["sql", "--lake", &lake, "--set", "lake.name=tabao", "-c", DAYS]), 2);
    assert!(
        errors.contains("no SQL files in sql/lakes/tabao/") && errors.contains("known: amazon-all-beauty, "),
        "{errors}"
    );
}

/// Returns the code blocks of one language in docs/howto/lake.md, in order.
fn documented(language: &str) -> Vec<String> {
    let text = include_str!("../../docs/howto/lake.md");
    let open = format!("```{language}\n");
    text.split(open.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap().to_string()).collect()
}

/// Writes the lake of docs/howto/lake.md with the files that the document shows.
async fn clicks(root: &Path) {
    let rows = "SELECT * FROM (VALUES \
        ('ann', 'A-1', 'show', TIMESTAMP '2026-03-01T23:30:00', 1250), \
        ('ann', 'A-1', 'order', TIMESTAMP '2026-03-01T23:40:00', 1250), \
        ('bob', 'B-2', 'show', TIMESTAMP '2026-03-02T09:00:00', 300) \
        ) AS t(customer, sku, action, clicked_at, cents)";
    write(root, "lake/events/2026-03.parquet", rows).await;
    let [lake, sql] = ["toml", "sql"].map(documented);
    std::fs::write(root.join("lake/lake.toml"), &lake[0]).unwrap();
    let folder = root.join("shop-sql/lakes/mine");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("raw_events.sql"), &sql[0]).unwrap();
    std::fs::write(folder.join("events.sql"), &sql[1]).unwrap();
}

#[tokio::test]
async fn your_own_lake_needs_sql_only() {
    let place = Place::new();
    clicks(place.0.path()).await;
    let (lake, output, folder) =
        (place.path("lake"), place.path("out"), format!("sql.folder={}", place.path("shop-sql")));
    let asked = |query: &str| {
        let places = ["--lake", &lake, "--output", &output, "--date", "2026-03-03", "--format", "csv", "-c", query];
        lines(&done(&intentcast(&[&["--set", &folder, "sql"], &places[..]].concat())))
    };
    let expected = [
        "ann,2026-03-01T23:30:00,view,A-1,,12.5",
        "ann,2026-03-01T23:40:00,purchase,A-1,,12.5",
        "bob,2026-03-02T09:00:00,view,B-2,,3.0",
    ];
    assert_eq!(asked("SELECT user_id, ts, event_type, item_id, quantity, price FROM events ORDER BY ts"), expected);
    // Up to state and features: 23:30 UTC is the next day in Paris; an order without a quantity is one unit.
    let days = asked("SELECT item_id, event_day, views, units, revenue FROM item_day ORDER BY item_id, event_day");
    assert_eq!(days, ["A-1,2026-03-02,1,1,12.5000", "B-2,2026-03-02,1,0,0.0000"]);
    let users = asked("SELECT user_id, purchases_7d, spend_28d FROM user_features ORDER BY user_id");
    assert_eq!(users, ["ann,1,12.5", "bob,0,0.0"]);
}
