//! The planner's report: its page in a browser, its order sheet in a spreadsheet program, its refusals.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::support::clients;
use crate::support::replenish::{self, Item};
use crate::support::shop::{contents, done, night, refused, shop, shop_with_a_night, upload};

const NIGHT: &str = "2026-02-21";
const EARLIER: &str = "2026-02-20";

/// Titles that must stay text wherever they are shown.
const HOSTILE: [&str; 6] = [
    "<script>window.broken = true</script><img src=x onerror=\"window.broken = true\">",
    "</script><script>window.broken = true</script>",
    "\"quoted\" & 'single' \\ {{ label.title }}",
    "🧦 emoji 👩‍👩‍👧",
    "مصباح دافئ لغرفة النوم",
    "=cmd|' /C calc'!A0",
];

/// Writes SQL that changes a built-in file; returns the setting that reads it.
fn overlay(folder: &Path, path: &str, change: impl Fn(&str) -> String) -> String {
    let built_in = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(path)).unwrap();
    let file = folder.join("sql").join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, change(&built_in)).unwrap();
    format!("sql.folder={}", folder.join("sql").display())
}

/// Runs a night whose review period of two weeks makes many items order.
fn night_of_many_orders(lake: &str, output: &str) {
    let settings = ["--set", "replenishment.review_period_days=14"];
    done(&[&settings[..], &["nightly", "--lake", lake, "--output", output, "--date", NIGHT]].concat());
}

/// Runs a report with settings; returns what it printed.
fn report(settings: &[&str], arguments: &[&str]) -> String {
    let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    done(&[&settings[..], &["report"], arguments].concat())
}

/// Returns the report for machines.
fn json(settings: &[&str], arguments: &[&str]) -> Value {
    serde_json::from_str(&report(settings, &[arguments, &["--format", "json"]].concat())).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

#[test]
fn a_planner_reads_the_page_in_a_browser() {
    if !clients::are_here("a_planner_reads_the_page_in_a_browser") {
        return;
    }
    let (own, lake, output) = shop();
    night(&lake, &output, EARLIER);
    night_of_many_orders(&lake, &output);
    let published = contents(&format!("{output}/tables"));
    let cases = HOSTILE.iter().enumerate().map(|(at, title)| format!("WHEN {at} THEN '{}'", title.replace('\'', "''")));
    let titles = cases.collect::<Vec<_>>().join(" ");
    let numbered = format!("CASE CAST(substr(item_id, 2) AS BIGINT) % 7 {titles} ELSE title END AS title");
    let setting = overlay(own.path(), "report/order_lines.sql", |sql| {
        let changed = sql.replace(
            "SELECT item_id, title, category FROM items",
            &format!("SELECT item_id, {numbered}, category FROM items"),
        );
        assert_ne!(changed, sql);
        changed
    });
    let to = own.path().join("report");
    let arguments = ["--lake", &lake, "--output", &output, "--date", NIGHT, "--to", to.to_str().unwrap()];
    let printed = report(&[&setting], &arguments);
    assert!(printed.contains("items to order") && printed.contains("index.html"), "{printed}");
    let machine = json(&[&setting], &arguments[..6]);
    let ordered: Vec<&Value> = machine["order_lines"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|l| l["order_quantity"].as_f64() > Some(0.0))
        .collect();
    assert!(ordered.len() > 5, "{machine}");

    let seen = clients::open_page(&to.join("index.html"));
    for empty in ["errors", "requests", "violations", "overflows"] {
        assert_eq!(seen[empty], Value::Array(Vec::new()), "{empty}");
    }
    assert_eq!(texts(&seen["hosts"]), ["orders.xlsx", "orders.csv"], "links to other places");
    assert_eq!(seen["scripts_run"], false, "a title was run");
    assert_eq!((&seen["heading"], &seen["language"]), (&"Orders and demand".into(), &"en".into()));
    let ids: Vec<&str> = ordered.iter().take(50).map(|line| line["item_id"].as_str().unwrap()).collect();
    assert_eq!(texts(&seen["order_items"]), ids, "the most urgent first");
    let reasons: Vec<String> =
        ordered.iter().take(50).map(|line| line["reason"].as_str().unwrap().replacen('p', "P", 1)).collect();
    assert_eq!(texts(&seen["reasons"]), reasons);
    assert!(seen["charts"].as_u64() >= Some(1) && seen["dialog_charts"] == 1, "{}", seen["charts"]);
    assert_eq!((&seen["aria_sort"], &seen["dialog_closed"]), (&"descending".into(), &true.into()));
    let sorted = texts(&seen["sorted_by_risk"]);
    let risks: Vec<f64> =
        sorted.iter().map(|risk| risk.trim_start_matches("< ").trim_end_matches('%').parse().unwrap_or(-1.0)).collect();
    assert!(risks.len() > 5 && risks.windows(2).all(|pair| pair[0] >= pair[1]), "{risks:?}");
    assert_eq!(seen["all_found"], format!("Items: {}", machine["order_lines"].as_array().unwrap().len()));
    assert_eq!(texts(&seen["search_found"]).len(), 1, "the id of one item is searched");
    let dialog = seen["dialog"].as_str().unwrap();
    assert!(dialog.contains("Reorder point") && dialog.contains("Forecast, mean"), "{dialog}");
    let orders = seen["sections"]["orders"].as_str().unwrap();
    assert!(HOSTILE[..2].iter().any(|title| orders.contains(title)), "a title is missing: {orders}");
    for (section, text) in [
        ("changes", "Compared with the night of Feb 20, 2026"),
        ("quality", "Bad rows by reason"),
        ("customers", "Funnel"),
    ] {
        assert!(seen["sections"][section].as_str().unwrap().contains(text), "{section}: {}", seen["sections"][section]);
    }
    assert_eq!(seen["without_script"].as_array().unwrap().len(), ordered.len().min(50), "without JavaScript");

    let sheet = fs::read_to_string(to.join("orders.csv")).unwrap();
    let mut reader = csv::Reader::from_reader(sheet.as_bytes());
    let records: Vec<csv::StringRecord> = reader.records().collect::<Result<_, _>>().unwrap();
    assert_eq!(records.len(), ordered.len());
    assert!(records.iter().flatten().all(|cell| !cell.starts_with('=')), "{sheet}");
    let formulas = ordered.iter().filter(|line| line["title"].as_str().is_some_and(|title| title.starts_with('=')));
    let made_harmless = records.iter().flatten().filter(|cell| cell.starts_with("'=cmd")).count();
    assert!(made_harmless > 0 && made_harmless == formulas.count(), "{sheet}");
    assert!(fs::metadata(to.join("index.html")).unwrap().len() < 1_000_000, "30 items take less than a megabyte");
    assert_eq!(contents(&format!("{output}/tables")), published, "a report changes no table");
}

#[test]
fn the_page_speaks_chinese_and_says_what_is_missing() {
    if !clients::are_here("the_page_speaks_chinese_and_says_what_is_missing") {
        return;
    }
    let (own, lake, output) = shop();
    // A first night, of a lake without inventory.
    let setting = overlay(own.path(), "master/inventory.sql", |sql| {
        format!("-- one row per item_id and as_of: none\nSELECT * FROM ({sql}) WHERE false\n")
    });
    done(&["--set", &setting, "nightly", "--lake", &lake, "--output", &output, "--date", NIGHT]);
    // And no item has a history.
    overlay(own.path(), "report/shown_days.sql", |sql| {
        format!("-- one row per item_id and day: none\nSELECT * FROM ({sql}) WHERE false\n")
    });
    report(&["report.language=zh", &setting], &["--output", &output]);
    let seen = clients::open_page(&Path::new(&output).join(format!("reports/{NIGHT}/index.html")));
    for empty in ["errors", "requests", "violations", "overflows"] {
        assert_eq!(seen[empty], Value::Array(Vec::new()), "{empty}");
    }
    assert_eq!((&seen["heading"], &seen["language"]), (&"订货与需求".into(), &"zh".into()));
    assert!(seen["limits"].as_str().unwrap().contains("未指定 --lake"), "{}", seen["limits"]);
    // The items can be looked up all the same.
    assert!(texts(&seen["order_items"]).len() > 20 && seen["dialog_charts"] == 1, "{}", seen["order_items"]);
    assert!(texts(&seen["reasons"]).iter().all(|reason| reason.contains("没有库存行")), "{}", seen["reasons"]);
    let dialog = seen["dialog"].as_str().unwrap();
    assert!(dialog.contains("没有销售或浏览") && dialog.contains("预测均值"), "{dialog}");
    let section = |name: &str| seen["sections"][name].as_str().unwrap();
    assert!(section("orders").contains("没有库存行"), "{}", section("orders"));
    assert!(section("changes").contains("没有更早的可见夜间运行"), "{}", section("changes"));
}

#[test]
fn the_state_alone_shows_what_the_lake_shows() {
    let (_own, lake, output) = shop();
    night(&lake, &output, EARLIER);
    night(&lake, &output, NIGHT);
    let (with_lake, without) = (json(&[], &["--lake", &lake, "--output", &output]), json(&[], &["--output", &output]));
    assert_eq!(
        (&with_lake["has_lake"], &without["has_lake"], &without["has_days"]),
        (&true.into(), &false.into(), &true.into())
    );
    for view in
        ["shown_items", "shown_days", "shown_forecasts", "shown_earlier_forecasts", "total_days", "item_changes"]
    {
        assert!(with_lake[view] == without[view], "{view} differs without the lake");
        assert!(!with_lake[view].as_array().unwrap().is_empty(), "{view}");
    }
    assert!(with_lake["order_lines"][0]["title"].is_string() && without["order_lines"][0]["title"].is_null());
    assert_eq!(with_lake["compared_date"], EARLIER);

    // An earlier night shows what it knew, although later days are in the state.
    let earlier = json(&[], &["--output", &output, "--date", EARLIER]);
    assert_eq!((&earlier["run_date"], &earlier["compared_date"]), (&EARLIER.into(), &Value::Null));
    let newest = earlier["shown_days"].as_array().unwrap().iter().map(|row| row["day"].as_str().unwrap()).max();
    assert!(newest < Some(EARLIER), "{newest:?}");

    // Nights of versions before this one left no record of their units.
    fs::remove_dir_all(Path::new(&output).join("state/nights")).unwrap();
    let old = json(&[], &["--output", &output]);
    assert_eq!((&old["has_days"], &old["shown_days"]), (&false.into(), &Value::Array(Vec::new())));
    assert_eq!(old["order_lines"], without["order_lines"]);

    // A night without demand tables shows no forecast, and none of another night.
    for table in ["demand", "demand_total"] {
        fs::remove_dir_all(Path::new(&output).join("tables").join(table)).unwrap();
    }
    let none = json(&[], &["--output", &output]);
    assert!(
        none["shown_forecasts"].as_array().unwrap().is_empty() && none["item_changes"].as_array().unwrap().is_empty()
    );
    let forecast = |row: &Value| !row["forecast"].is_null();
    assert!(!none["total_days"].as_array().unwrap().iter().any(forecast), "{}", none["total_days"]);
    assert_eq!(none["order_lines"].as_array().unwrap().len(), without["order_lines"].as_array().unwrap().len());
}

#[test]
fn a_night_of_an_older_version_keeps_its_numbers() {
    let (own, lake, output) = shop();
    night_of_many_orders(&lake, &output);
    // Such a night lacks the forecast of the lead time and what the inventory says of the item.
    let setting = overlay(own.path(), "report/order_lines.sql", |sql| {
        let old = ["service_level", "pack_size", "min_order_quantity", "review_period_days", "lead_time_demand_q05"];
        old.iter().fold(sql.to_string(), |sql, name| {
            sql.replace(&format!("    replenishment.{name},"), &format!("    CAST(NULL AS DOUBLE) AS {name},"))
        })
    });
    report(&[&setting], &["--output", &output]);
    let folder = Path::new(&output).join(format!("reports/{NIGHT}"));
    let machine = json(&[&setting], &["--output", &output]);
    let first = &machine["order_lines"][0];
    assert!(first["service_level"].is_null() && first["order_quantity"].as_f64() > Some(0.0), "{first}");
    if clients::are_here("a_night_of_an_older_version_keeps_its_numbers") {
        let opened = clients::recalculate(&folder.join("orders.xlsx"), &[]);
        let row = &rows(&opened["sheets"]["Orders"])[0];
        assert_eq!(number(row, "Order"), first["order_quantity"].as_f64().unwrap());
        assert_eq!(number(row, "Reorder point"), first["reorder_point"].as_f64().unwrap());
        assert!(opened["sheets"]["About"].to_string().contains("older version"), "{}", opened["sheets"]["About"]);

        // The formulas follow the built-in SQL of orders, and no other.
        let setting = overlay(own.path(), "tables/replenishment.sql", |sql| format!("{sql}-- changed\n"));
        fs::remove_file(own.path().join("sql/report/order_lines.sql")).unwrap();
        report(&[&setting], &["--output", &output]);
        let opened = clients::recalculate(&folder.join("orders.xlsx"), &[]);
        let about = opened["sheets"]["About"].to_string();
        assert!(about.contains("other SQL") && number(&rows(&opened["sheets"]["Orders"])[0], "Order") > 0.0, "{about}");
    }
}

#[test]
fn a_report_on_s3_has_its_files_there() {
    let (_own, lake, output) = shop_with_a_night();
    let server = upload(&lake, &output);
    let flags = server.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    done(&[&flags[..], &["report", "--output", "s3://shop/out"]].concat());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let listed = runtime.block_on(server.location(&format!("s3://shop/out/reports/{NIGHT}")).list()).unwrap();
    let names: Vec<&str> = listed.iter().filter_map(|object| object.location.filename()).collect();
    assert_eq!(names, ["index.html", "orders.csv", "orders.xlsx"]);
}

#[test]
fn reports_that_cannot_be_made_say_why() {
    let (own, lake, output) = shop();
    let errors = refused(&["report", "--output", &output], 2);
    assert!(errors.contains("no night is visible") && errors.contains("nightly --date D"), "{errors}");
    night(&lake, &output, NIGHT);
    let errors = refused(&["report", "--output", &output, "--date", EARLIER], 2);
    assert!(errors.contains(&format!("night {EARLIER}: not visible")) && errors.contains(NIGHT), "{errors}");
    for compared in [EARLIER, NIGHT, "2026-02-22"] {
        let errors = refused(&["report", "--output", &output, "--compare", compared], 2);
        assert!(errors.contains(compared), "{errors}");
    }
    let errors = refused(&["report", "--output", &output, "--format", "json", "--to", "x"], 2);
    assert!(errors.contains("--to"), "{errors}");
    let errors = refused(&["--set", "report.language=fr", "report", "--output", &output], 2);
    assert!(errors.contains("report.language") && errors.contains("zh"), "{errors}");
    let setting = overlay(own.path(), "report/order_lines.sql", |sql| {
        format!("-- one row per item_id: without its order\nSELECT * EXCLUDE (order_quantity) FROM ({sql})\n")
    });
    let errors = refused(&["--set", &setting, "report", "--output", &output], 2);
    assert!(errors.contains("sql/report/order_lines.sql: column order_quantity: expected a number"), "{errors}");
    let file = own.path().join("a-file");
    fs::write(&file, "").unwrap();
    let published = contents(&format!("{output}/tables"));
    let errors = refused(&["report", "--output", &output, "--to", &format!("{}/below", file.display())], 2);
    assert!(errors.contains("a-file"), "{errors}");
    assert_eq!(contents(&format!("{output}/tables")), published);
}

/// Returns each row of a sheet by header.
fn rows(sheet: &Value) -> Vec<BTreeMap<&str, &str>> {
    let lines: Vec<Vec<&str>> = sheet.as_array().unwrap().iter().map(texts).collect();
    lines[1..].iter().map(|line| lines[0].iter().copied().zip(line.iter().copied()).collect()).collect()
}

fn number(row: &BTreeMap<&str, &str>, header: &str) -> f64 {
    let (text, scale) = row[header].strip_suffix('%').map_or((row[header], 1.0), |percent| (percent, 100.0));
    text.parse::<f64>().unwrap_or_else(|e| panic!("{header}: {e}: {text:?}")) / scale
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * b.abs().max(1.0)
}

/// Returns the item that a published line is about.
fn item_of(line: &Value) -> Item {
    let number = |name: &str| line[name].as_f64().unwrap();
    let quantiles = [5, 10, 25, 50, 75, 90, 95].map(|level| number(&format!("lead_time_demand_q{level:02}")));
    Item {
        on_hand: number("on_hand"),
        on_order: number("on_order"),
        lead_time_days: number("lead_time_days"),
        pack_size: number("pack_size"),
        min_order_quantity: number("min_order_quantity"),
        service_level: number("service_level"),
        mean: number("lead_time_demand_mean"),
        quantiles,
    }
}

#[tokio::test]
async fn the_order_sheet_computes_what_the_night_published() {
    if !clients::are_here("the_order_sheet_computes_what_the_night_published") {
        return;
    }
    let (own, lake, output) = shop();
    let places = ["--lake", &lake, "--output", &output];
    night_of_many_orders(&lake, &output);
    let to = own.path().join("report");
    report(&[], &[&places[..], &["--to", to.to_str().unwrap()]].concat());
    let workbook = to.join("orders.xlsx");
    let machine = json(&[], &places);
    let lines = machine["order_lines"].as_array().unwrap();
    let ordered: Vec<&Value> = lines.iter().filter(|line| line["order_quantity"].as_f64() > Some(0.0)).collect();
    let published = |at: usize, name: &str| ordered[at][name].as_f64().unwrap();

    let opened = clients::recalculate(&workbook, &[]);
    assert_eq!(opened["missing"], Value::Array(Vec::new()));
    let sheets = &opened["sheets"];
    let computed = rows(&sheets["Orders"]);
    assert_eq!((computed.len(), rows(&sheets["Other items"]).len()), (ordered.len(), lines.len() - ordered.len()));
    assert!(ordered.len() > 5);
    for (at, row) in computed.iter().enumerate() {
        assert_eq!(row["Item"], ordered[at]["item_id"].as_str().unwrap());
        let pairs = [
            ("Order", "order_quantity"),
            ("Reorder point", "reorder_point"),
            ("Stock-out risk", "stock_out_risk"),
            ("Days of cover", "days_of_cover"),
            ("Safety stock", "safety_stock"),
        ];
        for (header, name) in pairs {
            let (sheet, table) = (number(row, header), published(at, name));
            assert!(close(sheet, table), "{} {name}: sheet {sheet}, table {table}", row["Item"]);
        }
        assert_eq!(row["Edited"], "");
    }
    for row in rows(&sheets["Other items"]) {
        assert_eq!(row["Order"], "0", "{row:?}");
    }

    // Edited: stock of the first, service level of the second, pack size of the third, lead time of the fourth. A pack of no unit
    // counts as one unit, and a service level of 0 as the published one.
    let edits =
        [("G2", 0.0), ("K3", 0.8), ("L4", 7.0), ("I5", published(3, "lead_time_days") * 4.0), ("L6", 0.0), ("K7", 0.0)];
    let edits: Vec<(String, f64)> = edits.iter().map(|(cell, number)| (cell.to_string(), *number)).collect();
    let mut edited: Vec<Item> = ordered.iter().map(|line| item_of(line)).collect();
    edited[0].on_hand = 0.0;
    edited[1].service_level = 0.8;
    edited[2].pack_size = 7.0;
    edited[4].pack_size = 1.0;
    edited[3].lead_time_days *= 4.0;
    edited[3].mean *= 4.0;
    let median = edited[3].quantiles[3];
    // The mean grows with the days, the spread with their root.
    edited[3].quantiles = edited[3].quantiles.map(|q| (median * 4.0 + (q - median) * 2.0).max(0.0));
    let expected = replenish::lines(&edited, 14).await;
    let opened = clients::recalculate(&workbook, &edits);
    for (at, row) in rows(&opened["sheets"]["Orders"]).iter().enumerate() {
        let line = expected[at];
        let numbers = ["Reorder point", "Order", "Stock-out risk"].map(|header| number(row, header));
        let wanted = [line.reorder_point, line.order_quantity, line.stock_out_risk];
        assert!(
            numbers.iter().zip(wanted).all(|(a, b)| close(*a, b)),
            "{}: {numbers:?}, expected {wanted:?}",
            row["Item"]
        );
        let is_estimate = row["Edited"] == "estimate: lead time edited";
        assert_eq!(is_estimate, at == 3, "{row:?}");
    }
}
