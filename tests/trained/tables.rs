//! `train --task table` and `predict_table`, from files of rows to predictions in SQL.

use datafusion::dataframe::DataFrameWriteOptions;
use datafusion::prelude::SessionContext;
use intentcast::config::Config;
use intentcast::model::table::bundle::TableCard;
use intentcast::training::flat_table::TableOptions;
use intentcast::training::table;
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use crate::support::job::Job;

/// Returns rows of customers. Buying depends on city and membership together, which no sum of effects shows; spend depends on
/// visits.
fn customers(rows: u32) -> String {
    let mut text = String::from("id;visits;city;code;member;noise;bought;spend\n");
    for i in 0..rows {
        let draw = |what: &str| {
            let hash = blake3::hash(format!("{what} {i}").as_bytes());
            f64::from(u32::from_le_bytes(hash.as_bytes()[..4].try_into().unwrap())) / f64::from(u32::MAX)
        };
        let (visits, north, member) = ((draw("visits") * 20.0).floor(), draw("city") < 0.5, draw("member") < 0.5);
        let city = match (north, draw("which") < 0.5) {
            (true, true) => "Aberdeen",
            (true, false) => "Inverness",
            (false, true) => "Brighton",
            (false, false) => "Plymouth",
        };
        let likely = if north == member { 0.85 } else { 0.1 };
        let bought = draw("bought") < likely;
        let spend = visits * (0.5 + draw("spend"));
        let visits = if draw("known") < 0.1 { String::new() } else { format!("{visits}") };
        let code = 100 + (draw("code") * 3.0) as u32;
        let noise = draw("noise");
        writeln!(text, "c{i};{visits};{city};{code};{member};{noise:.6};{bought};{spend:.3}").unwrap();
    }
    text
}

const SETTINGS: [&str; 3] = ["table.delimiter=;", "train.batch_rows=128", "train.epochs_max=8"];

struct Shop {
    job: Job,
}

impl Shop {
    fn new(rows: &str) -> Self {
        let job = Job::new(&SETTINGS);
        std::fs::write(job.path("customers.csv"), rows).unwrap();
        Self { job }
    }

    fn path(&self, name: &str) -> String {
        self.job.path(name)
    }

    fn done(&self, arguments: &[&str]) -> String {
        self.job.done(&[], arguments).0
    }

    fn refused(&self, arguments: &[&str], code: i32, parts: &[&str]) {
        self.job.refused(&[], arguments, code, parts);
    }

    /// Returns the folders of models, by name.
    fn models(&self) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> =
            std::fs::read_dir(self.path("out/models")).unwrap().map(|e| e.unwrap().path()).collect();
        found.sort();
        found
    }
}

fn card(model: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(model.join("table.json")).unwrap()).unwrap()
}

#[test]
fn a_table_model_predicts_in_sql_and_no_night_uses_it() {
    let shop = Shop::new(&customers(4000));
    let file = shop.path("customers.csv");
    let flags = ["--label", "bought", "--label", "spend", "--exclude", "id", "--category", "code"];
    let train = [&["train", "--task", "table", "--table", &file][..], &flags].concat();
    let printed = shop.done(&train);
    let models = shop.models();
    let [model] = models.as_slice() else { panic!("expected one model, got {models:?}") };
    let version = model.file_name().unwrap().to_str().unwrap();
    assert!(version.starts_with("table-") && printed.contains(version), "{printed}");

    let card = card(model);
    let figure = |name: &str| card["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {card}"));
    // The upper bound: P(bought) is 0.85 or 0.1, an AUC of about 0.87.
    let (low, auc, high) = (figure("auc_low_test_bought"), figure("auc_test_bought"), figure("auc_high_test_bought"));
    assert!(low < auc && auc < high && auc > 0.8, "{low} {auc} {high}");
    // A sum of effects predicts nothing here.
    assert!(figure("auc_test_bought_regression") < 0.6, "{}", figure("auc_test_bought_regression"));
    assert!(figure("ap_test_bought") > 0.7 && figure("f1_test_bought") > 0.7 && figure("accuracy_test_bought") > 0.8);
    assert!(figure("mae_test_spend") < 0.7 * figure("mae_of_mean_test_spend"));
    let rows = [figure("rows_train"), figure("rows_valid"), figure("rows_test")];
    assert!(rows.iter().sum::<f64>() == 4000.0 && rows[0] > 3000.0 && rows[2] > 300.0, "{rows:?}");

    // The same data, seed and machine give the same weights, so the same version.
    shop.done(&train);
    assert_eq!(shop.models(), models);

    let columns = "named_struct('visits', visits, 'city', city, 'code', code, 'member', member, 'noise', noise)";
    let sql = format!(
        "CREATE EXTERNAL TABLE customers STORED AS CSV LOCATION '{file}' \
         OPTIONS ('format.has_header' 'true', 'format.delimiter' ';'); \
         SELECT bought, round(avg(predict_table({columns}, '{version}', 'bought')), 1) AS p, \
                round(avg(predict_table({columns}, '{version}', 'spend') - spend), 0) AS miss, \
                count(predict_table({columns}, '{version}', 'spend')) AS rows \
         FROM customers GROUP BY bought ORDER BY bought"
    );
    let shown = shop.done(&["sql", "--format", "csv", "-c", &sql]);
    let lines: Vec<Vec<&str>> = shown.lines().skip(1).map(|l| l.split(',').collect()).collect();
    let p = |line: usize| lines[line][1].parse::<f64>().unwrap();
    assert!(lines.len() == 2 && p(0) < 0.35 && p(1) > 0.65, "{shown}");
    assert!(lines.iter().all(|l| l[2].parse::<f64>().unwrap().abs() <= 1.0), "{shown}");

    // Unseen values and nulls still have a prediction; a row does not depend on its neighbours.
    let of = |values: &str| {
        let names = "t(visits, city, code, member, noise)";
        let sql =
            format!("SELECT predict_table({columns}, '{version}', 'bought') AS p FROM (VALUES {values}) AS {names}");
        let shown = shop.done(&["sql", "--format", "csv", "-c", &sql]);
        shown.lines().skip(1).map(|p| p.parse::<f64>().unwrap()).collect::<Vec<f64>>()
    };
    let strange =
        "(3, 'Oslo', 999, true, 0.5), (CAST(NULL AS INT), NULL, NULL, NULL, NULL), (3, 'Aberdeen', 101, true, 0.5)";
    let (three, one) = (of(strange), of("(3, 'Aberdeen', 101, true, 0.5)"));
    assert!(three.iter().all(|p| (0.0..=1.0).contains(p)) && three[2] > 0.6, "{three:?}");
    assert!((three[2] - one[0]).abs() < 1e-6);

    // A call can read the result of another, in a filter too.
    let inner = format!("predict_table({columns}, '{version}', 'spend')");
    let outer = columns.replacen("visits, ", &format!("{inner}, "), 1);
    let (create, _) = sql.split_once("; ").unwrap();
    let nested = format!(
        "{create}; SELECT count(*) AS n, min(p) >= 0 AS least FROM \
         (SELECT predict_table({outer}, '{version}', 'bought') + 0 * {inner} AS p FROM customers \
          WHERE predict_table({outer}, '{version}', 'bought') >= 0 LIMIT 50)"
    );
    assert_eq!(shop.done(&["sql", "--format", "csv", "-c", &nested]), "n,least\n50,true\n");

    let listed = shop.done(&["models", "--format", "csv"]);
    assert!(listed.contains(&format!("{version},table,,")), "{listed}");
    assert!(!Path::new(&shop.path("out/models/champion")).exists());
    shop.refused(&["promote", version, "--force"], 6, &["expected a night's model, got one of a table"]);
    let named = format!("model.version={version}");
    let night = ["--set", &named, "nightly", "--lake", &shop.path("lake"), "--date", "2026-03-01"];
    shop.refused(&night, 6, &["expected a night's model, got one of a table"]);
    for (query, code, part) in [
        (format!("SELECT predict_table({columns}, '{version}') FROM customers"), 2, "labels bought, spend"),
        (format!("SELECT predict_table({columns}, '{version}', 'id') FROM customers"), 2, "got \"id\""),
        (
            format!("SELECT predict_table(named_struct('visits', 1), '{version}', 'bought')"),
            6,
            "column city is missing",
        ),
        (format!("SELECT predict_table({columns}, 'table-1', 'bought') FROM customers"), 6, "no such table model"),
        (format!("SELECT predict_table({columns}) FROM customers"), 2, "a model version"),
        ("SELECT predict_table(1, 'x')".into(), 2, "expected a struct"),
    ] {
        let (create, _) = sql.split_once("; ").unwrap();
        shop.refused(&["sql", "-c", &format!("{create}; {query}")], code, &[part]);
    }

    // The probability is a blend with trees, the amount is the network's; trees that changed are refused.
    assert!(figure("auc_test_bought_trees") > 0.75 && figure("auc_test_bought_network") > 0.75);
    let weights = card["network_weights"].as_object().unwrap();
    assert!(weights.len() == 1 && (0.0..=1.0).contains(&weights["0"].as_f64().unwrap()), "{weights:?}");
    let trees = model.join("trees.safetensors");
    let mut bytes = std::fs::read(&trees).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&trees, bytes).unwrap();
    shop.refused(&["sql", "-c", &sql], 6, &["trees.safetensors: checksum mismatch", "train again"]);
    let without = [&["--set", "table.trees=false"], &train[..]].concat();
    shop.done(&without);
    assert_eq!(shop.models().iter().filter(|model| model.join("trees.safetensors").exists()).count(), 1);
}

#[test]
fn unusable_tables_are_refused_with_the_reason() {
    let mut rows = String::from("x;y;same;empty;day;word;label;negative\n");
    for i in 0..400 {
        writeln!(rows, "{i};{};7;;2026-01-01;w{};{};{}", i % 3, i % 2, i % 2 == 0, i - 200).unwrap();
    }
    let shop = Shop::new(&rows);
    let file = shop.path("customers.csv");
    std::fs::write(shop.path("notes.txt"), "no table").unwrap();
    std::fs::write(shop.path("broken.parquet"), "no parquet").unwrap();
    std::fs::write(shop.path("ragged.csv"), "a;b\n1;2\n1;2;3\n").unwrap();
    std::fs::write(shop.path("few.csv"), rows.lines().take(60).collect::<Vec<_>>().join("\n")).unwrap();
    let good = ["--exclude", "empty", "--exclude", "day"];
    let cases: [(&str, Vec<&str>, i32, &[&str]); 12] = [
        (&file, [&["--label", "nothing"], &good[..]].concat(), 2, &["--label: expected a column", "x, y, same"]),
        (&file, [&["--label", "label", "--exclude", "gone"], &good[..]].concat(), 2, &["--exclude: expected a column"]),
        (&file, good.to_vec(), 2, &["pass --label"]),
        (&file, [&["--label", "same"], &good[..]].concat(), 3, &["label same: all", "same value, 7"]),
        (&file, vec!["--label", "label", "--exclude", "day"], 3, &["column empty: all", "are null", "--exclude empty"]),
        (&file, vec!["--label", "label", "--exclude", "empty"], 2, &["column day", "got Date32"]),
        (&file, [&["--label", "negative"], &good[..]].concat(), 2, &["poisson takes amounts from 0", "mse, mae"]),
        (&file, [&["--label", "label", "--time-column", "word"], &good[..]].concat(), 3, &["--time-column word"]),
        (
            &shop.path("few.csv"),
            [&["--label", "label"], &good[..]].concat(),
            3,
            &["at least 128 rows", "train.batch_rows"],
        ),
        (&shop.path("notes.txt"), vec!["--label", "label"], 3, &["notes.txt", "expected .csv or .parquet"]),
        (&shop.path("broken.parquet"), vec!["--label", "label"], 3, &["--table"]),
        (&shop.path("ragged.csv"), vec!["--label", "a"], 3, &["--table"]),
    ];
    for (table, flags, code, parts) in cases {
        shop.refused(&[&["train", "--task", "table", "--table", table][..], &flags].concat(), code, parts);
    }
    shop.refused(&["train", "--task", "table", "--label", "label"], 2, &["pass --table"]);
    shop.refused(&["train"], 2, &["pass --date, or --task table"]);
    let chain = ["--set", "model.head=crf", "--set", "model.loss=crf", "train", "--task", "table", "--label", "label"];
    shop.refused(&[&chain[..], &["--table", &file], &good].concat(), 2, &["for a table, got crf"]);
    assert!(!Path::new(&shop.path("out/models")).exists(), "a refused training writes nothing");
}

#[test]
fn a_killed_training_resumes_to_the_same_weights() {
    let shop = Shop::new(&customers(1500));
    let file = shop.path("customers.csv");
    let train = ["train", "--task", "table", "--table", &file, "--label", "bought", "--exclude", "id"];
    let kills = [("regression", 5), ("table", 3), ("table", 30)];
    shop.job.resumes_after_kills((&["table.delimiter=;"], &train), &kills, "table.json");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parquet_folder_is_split_by_time_and_a_large_one_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let ctx = SessionContext::new();
    // The relation reverses in the last tenth, so a split by time must show a model that has not learnt it.
    for part in 0..2 {
        let sql = format!(
            "SELECT DATE '2026-01-01' + CAST(i / 20 AS INT) AS day, (i * 7919) % 1000 AS x, \
                    ((i * 7919) % 1000 < 500) <> (i >= 1800) AS y \
             FROM generate_series({}, {}) AS s(i)",
            part * 1000,
            part * 1000 + 999
        );
        let path = folder.path().join(format!("table/{part}.parquet"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let options = DataFrameWriteOptions::new().with_single_file_output(true);
        ctx.sql(&sql).await.unwrap().write_parquet(path.to_str().unwrap(), options, None).await.unwrap();
    }
    let mut config = Config::default();
    config.output.uri = folder.path().join("out").display().to_string();
    config.train.batch_rows = 64;
    config.train.epochs_max = 5;
    let options = TableOptions {
        table: vec![folder.path().join("table").display().to_string()],
        label: vec!["y".into()],
        time_column: Some("day".into()),
        ..Default::default()
    };
    let later: TableCard = table::train(&config, &options).await.unwrap();
    assert!(later.figures["auc_test_y"] < 0.1, "{:?}", later.figures);
    assert_eq!((later.figures["rows_train"], later.figures["rows_test"]), (1600.0, 200.0));
    assert!(later.split.contains("split by day") && later.columns.0.len() == 1);

    config.train.rows_max = 500;
    let options = TableOptions { time_column: None, exclude: vec!["day".into()], ..options };
    let figures = table::train(&config, &options).await.unwrap().figures;
    let rows = figures["rows_train"] + figures["rows_valid"] + figures["rows_test"];
    assert!((350.0..650.0).contains(&rows), "{rows}");
}

/// Writes Parquet files of vectors with `intentcast sql`, as a user would. `y` follows the sum of the first two of six numbers,
/// and is true for nine of ten rows without a vector; `kind` follows the first number. Rows without a vector differ in `w`, so
/// that all splits have some.
fn write_vectors(shop: &Shop, files: &[(&str, &str)]) {
    let numbers = [7919, 6007, 5003, 4001, 3001, 2003].map(|of| format!("((i * {of}) % 1009) / 504.5 - 1")).join(", ");
    let copy = |(name, vector): &(&str, &str)| {
        format!(
            "COPY (SELECT i % 97 AS w, CASE WHEN i % 8 = 0 THEN NULL ELSE {vector} END AS v, \
                          CASE WHEN i % 8 = 0 THEN i % 80 > 0 ELSE n[1] + n[2] > 0.3 END AS y, \
                          CASE WHEN n[1] < -0.3 THEN 'bag' WHEN n[1] < 0.3 THEN 'hat' ELSE 'shoe' END AS kind \
                   FROM (SELECT i, [{numbers}] AS n FROM generate_series(0, 2399) AS s(i))) \
             TO '{}' STORED AS PARQUET",
            shop.path(name)
        )
    };
    shop.done(&["sql", "-c", &files.iter().map(copy).collect::<Vec<_>>().join("; ")]);
}

#[test]
fn vector_columns_are_learnt_and_other_lengths_are_refused() {
    let shop = Shop::new("");
    let not_a_number = "CASE WHEN i = 9 THEN array_append(n[1:5], 'NaN'::DOUBLE) ELSE n END";
    let short = "CASE WHEN i < 3 THEN [0.5] ELSE n END";
    write_vectors(&shop, &[("good.parquet", "n"), ("short.parquet", short), ("nan.parquet", not_a_number)]);
    let of = |name: &str| shop.path(name);
    let train = ["train", "--task", "table", "--label", "y", "--label", "kind", "--table"];
    let printed = shop.done(&[&train[..], &[&of("good.parquet")]].concat());
    let models = shop.models();
    let [model] = models.as_slice() else { panic!("expected one model, got {models:?}") };
    let (card, version) = (card(model), model.file_name().unwrap().to_str().unwrap());
    assert!(printed.contains("'v', \"v\")"), "{printed}");
    assert_eq!(card["columns"][1]["kind"]["vector"]["width"], 6);
    let figure = |name: &str| card["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {card}"));
    assert!(figure("auc_low_test_y") > 0.85 && figure("accuracy_low_test_kind") > 0.6, "{}", card["figures"]);
    assert!(figure("f1_macro_test_kind") > 0.6 && figure("accuracy_of_most_frequent_test_kind") < 0.5);

    let call = |v: &str, label: &str| format!("predict_table(named_struct('w', 50, 'v', {v}), '{version}', '{label}')");
    let rows = "([0.9, 0.9, 0, 0, 0, 0]), (NULL), ([-0.9, -0.9, 0, 0, 0, 0]), ([0, 0, 0, 0, 0, 0])";
    let labels = ["y", "kind=bag", "kind=hat", "kind=shoe"].map(|label| call("v", label)).join(", ");
    let sql = format!("SELECT {labels} FROM (VALUES {rows}) AS t(v)");
    let shown = shop.done(&["sql", "--format", "csv", "-c", &sql]);
    let numbers = |line: &str| line.split(',').map(|p| p.parse().unwrap()).collect::<Vec<f64>>();
    // The names in the header contain commas.
    let p: Vec<Vec<f64>> = shown.lines().rev().take(4).map(numbers).collect();
    let [zeros, low, missing, high] = p.as_slice() else { panic!("{shown}") };
    // A missing vector is not a vector of zeros, whose sum would predict false.
    assert!(high[0] > 0.8 && missing[0] > 0.7 && low[0] < 0.2 && zeros[0] < 0.4, "{shown}");
    assert!(high[3] > 0.8 && low[1] > 0.8 && zeros[2] > 0.6 && missing[1..].iter().all(|p| *p < 0.6), "{shown}");
    assert!(p.iter().all(|p| (p[1] + p[2] + p[3] - 1.0).abs() < 1e-6), "{shown}");
    shop.refused(&["sql", "-c", &format!("SELECT {}", call("NULL", "kind"))], 2, &["labels y, kind=bag, kind=hat"]);

    for (vector, part) in [
        ("[1, 2, 3]", "column v: expected vectors of 6 numbers, got 1 of 1 rows with another length, row 1 with 3"),
        ("[1, 2, 3, 4, 5, 'NaN'::DOUBLE]", "column v: expected finite numbers in each vector, got 1 of 1 rows"),
    ] {
        shop.refused(&["sql", "-c", &format!("SELECT {}", call(vector, "y"))], 3, &[part]);
    }
    for (name, part) in [
        (
            "short.parquet",
            "column v: expected vectors of 6 numbers, got 2 of 2400 rows with another length, row 2 with 1",
        ),
        ("nan.parquet", "column v: expected finite numbers in each vector, got 1 of 2400 rows with NaN"),
    ] {
        shop.refused(&[&train[..], &[&of(name)]].concat(), 3, &[part]);
    }
    assert_eq!(shop.models(), models, "a refused training writes nothing");

    // Trees read no vectors, so there are none where the table has nothing else.
    let alone = ["--exclude", "w", "--exclude", "kind"];
    shop.done(&[&["train", "--task", "table", "--label", "y", "--table", &of("good.parquet")][..], &alone].concat());
    let made: Vec<PathBuf> = shop.models().into_iter().filter(|made| made != model).collect();
    let [made] = made.as_slice() else { panic!("expected one more model, got {made:?}") };
    assert!(!made.join("trees.safetensors").exists() && model.join("trees.safetensors").exists());
}
