//! `train --task text` and `classify_text`: every strategy from files of texts to probabilities in SQL, with the small
//! random encoders of tests/fixtures/text.

use serde_json::Value;
use std::fmt::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::job::Job;
use crate::support::lakes;
use crate::support::server::{Server, clients_are_here};

/// Returns reviews whose words determine the labels: "good" is recommended, the product is the department, "wonderful" is
/// loved, which only recommended ones are. Every 40th has no label, every 41st no text.
fn reviews(rows: u32) -> String {
    let mut text = String::from("review,recommended,department,loved,stars,same,none\n");
    for i in 0..rows {
        let draw = |what: &str| u32::from(blake3::hash(format!("{what} {i}").as_bytes()).as_bytes()[0]);
        let (good, thing) = (draw("good") < 128, ["mug", "lamp", "chair"][draw("thing") as usize % 3]);
        let loved = good && draw("loved") < 128;
        let verdict = match (good, loved) {
            (true, true) => "good and wonderful",
            (true, false) => "good",
            _ => "broke after two days",
        };
        let review = if i % 41 == 40 { String::new() } else { format!("the {thing} number {i} is {verdict}") };
        let recommended = if i % 40 == 39 { String::new() } else { u8::from(good).to_string() };
        let stars = 1 + 3 * u8::from(good) + u8::from(loved);
        writeln!(text, "\"{review}\",{recommended},{thing},{},{stars},7,", u8::from(loved)).unwrap();
    }
    text
}

struct Shop {
    job: Job,
}

impl Deref for Shop {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

/// Settings of every training here: few large steps, because random encoders know nothing.
const SETTINGS: [&str; 6] = [
    "text.learning_rate=0.01",
    "text.head_learning_rate=0.02",
    "text.beside_learning_rate=0.02",
    "text.batch_tokens_max=256",
    "text.epochs_max=6",
    "text.max_length=24",
];

impl Shop {
    fn new() -> Self {
        let job = Job::new(&SETTINGS);
        std::fs::write(job.path("reviews.csv"), reviews(500)).unwrap();
        Self { job }
    }

    fn done(&self, settings: &[&str], arguments: &[&str]) -> String {
        self.job.done(settings, arguments).0
    }

    /// Trains on the reviews; returns the written model.
    fn train(&self, encoder: &str, settings: &[&str], labels: &[&str]) -> Model {
        let arguments = task(&self.path("reviews.csv"), &fixture(encoder), labels);
        let printed = self.done(settings, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let version = printed.split_whitespace().nth(2).unwrap().to_string();
        let folder = PathBuf::from(self.path("out/models")).join(&version);
        let card = serde_json::from_slice(&std::fs::read(folder.join("text.json")).unwrap()).unwrap();
        assert!(printed.contains(&format!("text model {version}")), "{printed}");
        Model { version, folder, card }
    }

    /// Returns the rows of a query as CSV, without the header.
    fn sql(&self, query: &str) -> Vec<String> {
        self.done(&[], &["sql", "--format", "csv", "-c", query]).lines().skip(1).map(String::from).collect()
    }

    /// Returns the probability of a label for each text.
    fn probabilities(&self, model: &Model, label: &str, texts: &[&str]) -> Vec<f64> {
        let values: Vec<String> = texts.iter().enumerate().map(|(i, text)| format!("({i}, '{text}')")).collect();
        let (values, version) = (values.join(", "), &model.version);
        let rows = self.sql(&format!(
            "SELECT classify_text(t, '{version}', '{label}') FROM (VALUES {values}) AS v(i, t) ORDER BY i"
        ));
        rows.iter().map(|p| p.parse().unwrap()).collect()
    }

    /// Returns the AUC of `classify_text` over all reviews: the share of pairs, one of them recommended, in correct order.
    fn auc_in_sql(&self, version: &str) -> f64 {
        let file = self.path("reviews.csv");
        let rows = self.sql(&format!(
            "CREATE EXTERNAL TABLE reviews STORED AS CSV LOCATION '{file}' OPTIONS ('format.has_header' 'true'); \
             CREATE TABLE scored AS SELECT recommended, classify_text(review, '{version}', 'recommended') AS p FROM reviews \
             WHERE review IS NOT NULL AND recommended IS NOT NULL; \
             SELECT avg(CASE WHEN a.p > b.p THEN 1.0 WHEN a.p = b.p THEN 0.5 ELSE 0.0 END) \
             FROM scored a CROSS JOIN scored b WHERE a.recommended = 1 AND b.recommended = 0"
        ));
        rows[0].parse().unwrap()
    }
}

struct Model {
    version: String,
    folder: PathBuf,
    card: Value,
}

impl Model {
    fn figure(&self, name: &str) -> f64 {
        self.card["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {}", self.card))
    }

    fn weights(&self) -> Vec<(String, tch::Tensor)> {
        tensors(&self.folder.join("text/model.safetensors"))
    }
}

fn tensors(path: &Path) -> Vec<(String, tch::Tensor)> {
    let mut named = tch::Tensor::read_safetensors(path).unwrap();
    named.sort_by(|a, b| a.0.cmp(&b.0));
    named
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text").join(name).display().to_string()
}

fn task(table: &str, encoder: &str, labels: &[&str]) -> Vec<String> {
    let mut words = vec!["train", "--task", "text", "--table", table, "--text-column", "review", "--encoder", encoder];
    labels.iter().for_each(|label| words.extend(["--label", label]));
    words.into_iter().map(String::from).collect()
}

#[test]
fn embed_text_equals_sentence_transformers() {
    let (shop, folder) = (Shop::new(), fixture("minilm"));
    let expected: Value = serde_json::from_slice(&std::fs::read(format!("{folder}/expected.json")).unwrap()).unwrap();
    let tensors = tensors(Path::new(&format!("{folder}/expected.safetensors")));
    let pooled = &tensors.iter().find(|(name, _)| name == "pooled").unwrap().1;
    let allowed = format!("functions.folders={folder}");
    let texts = expected["batch"].as_array().unwrap().iter().map(|text| text.as_str().unwrap());
    let mut compared = 0;
    // Each text three times, next to nulls: equal texts are encoded together. Unit tests cover bytes that a shell cannot pass.
    for (row, text) in (0..).zip(texts).filter(|(_, text)| !text.contains('\0')) {
        let text = text.replace('\'', "''");
        let query = format!(
            "SELECT array_to_string(embed_text(t, '{folder}'), ' ') FROM (VALUES (1, '{text}'), (2, NULL), (3, '{text}'), \
             (4, '{text}')) AS v(i, t) ORDER BY i"
        );
        let (printed, _) = shop.job.done(&[&allowed], &["sql", "--format", "csv", "-c", &query]);
        let lines: Vec<&str> = printed.lines().skip(1).collect();
        assert!(lines.len() == 4 && lines[1].trim_matches('"').is_empty() && lines[0] == lines[2], "{printed}");
        let vector: Vec<f32> = lines[3].split(' ').map(|number| number.parse().unwrap()).collect();
        let apart = (tch::Tensor::from_slice(&vector) - pooled.get(row)).abs().max().double_value(&[]);
        assert!(apart < 1e-4 && lines[0] == lines[3], "{text:?}: {apart}");
        compared += 1;
    }
    assert!(compared > 3, "{compared} texts");

    // Bytes are read as UTF-8, what is none of it as U+FFFD; rows of several partitions come in the order that is asked for.
    let run = |query: &str| shop.job.done(&[&allowed], &["sql", "--format", "csv", "-c", query]).0;
    let same = format!(
        "SELECT embed_text(decode('636166ff00', 'hex'), '{folder}') = embed_text(concat('caf', chr(65533), chr(0)), '{folder}') \
         AS broken, embed_text(arrow_cast('café', 'Binary'), '{folder}') = embed_text('café', '{folder}') AS whole"
    );
    assert_eq!(run(&same), "broken,whole\ntrue,true\n");
    let ordered = format!(
        "CREATE TABLE t AS SELECT value AS i, concat('mug ', value % 7) AS t FROM generate_series(1, 30000); \
         CREATE TABLE s AS SELECT i, embed_text(t, '{folder}') AS v FROM t ORDER BY i DESC; \
         SELECT count(*) AS n FROM s WHERE v IS NOT NULL"
    );
    assert_eq!(run(&ordered), "n\n30000\n");
    let nested = format!("SELECT embed_text('a', '{folder}') AS v");
    shop.job.refused(
        &[&allowed],
        &["sql", "--format", "csv", "-c", &nested],
        2,
        &["column v: CSV cannot hold List", "json"],
    );
}

#[test]
fn every_strategy_goes_from_texts_to_sql() {
    let shop = Shop::new();
    let original = tensors(&PathBuf::from(fixture("bert")).join("model.safetensors"));
    // Strategy, settings, true if the encoder's weights stay, the stored files next to them, required figures.
    let cases: [(&str, &[&str], bool, bool, f64); 8] = [
        ("everything", &[], false, false, 0.95),
        ("first layers frozen", &["text.frozen_layers=1"], false, false, 0.9),
        ("smaller rates below", &["text.layer_decay=0.5"], false, false, 0.95),
        ("accumulated", &["text.accumulation_steps=3", "text.gradient_norm_max=0.5"], false, false, 0.9),
        ("only the head", &["text.strategy=frozen"], true, false, 0.9),
        ("lora", &["text.strategy=lora", "text.rank=4"], false, false, 0.9),
        ("adapters", &["text.strategy=adapters", "text.bottleneck=8"], true, true, 0.9),
        ("prefix", &["text.strategy=prefix", "text.prefix_length=4", "text.epochs_max=12"], true, true, 0.9),
    ];
    for (what, settings, same, has_extra_weights, auc) in cases {
        // A random head, so that the figures show what the strategy learnt. Where it learns parameters next to the encoder's
        // weights, the head stays as it is.
        let random: &[&str] = match what {
            "only the head" => &[],
            "lora" | "adapters" | "prefix" => &["text.head_epochs_max=0", "text.head_learning_rate=1e-9"],
            _ => &["text.head_epochs_max=0"],
        };
        let model = shop.train("bert", &[settings, random].concat(), &["recommended"]);
        let got = model.figure("auc_test_recommended");
        println!(
            "{what}: AUC {got:.3}, {} of {} weights",
            model.figure("parameters_trained"),
            model.figure("parameters")
        );
        assert!(got > auc, "{what}: {got}");
        let weights = model.weights();
        let kept = |name: &str| {
            let old = original.iter().find(|(n, _)| n.trim_start_matches("bert.") == name);
            let new = weights.iter().find(|(n, _)| n == name);
            old.unwrap().1.equal(&new.unwrap().1)
        };
        let first = "encoder.layer.0.output.dense.weight";
        let last = "encoder.layer.1.attention.self.query.weight";
        assert_eq!(kept(last), same, "{what}");
        if what == "first layers frozen" {
            let low = |name: &str| name.starts_with("embeddings.") || name.starts_with("encoder.layer.0.");
            let names: Vec<&String> = weights.iter().map(|(name, _)| name).filter(|name| low(name)).collect();
            assert!(names.len() > 16 && names.iter().all(|name| kept(name)), "{what}: {names:?}");
        } else if what == "lora" {
            assert!(kept(first), "{what}: only queries and values differ");
            let merged = model.figure("merged_difference");
            assert!(merged < 1e-5, "{what}: {merged}");
        } else {
            assert_eq!(kept(first), same, "{what}");
        }
        assert_eq!(model.folder.join("beside.safetensors").exists(), has_extra_weights, "{what}");
        // A card counts the trained weights only.
        assert!(model.figure("parameters_trained") < model.figure("parameters") || !same && what != "lora", "{what}");
        // SQL reaches the figures of the training, so all trained weights were loaded.
        let in_sql = shop.auc_in_sql(&model.version);
        assert!(in_sql > auc, "{what}: {in_sql}");
    }
}

#[test]
fn each_loss_learns_its_kind_of_label() {
    let shop = Shop::new();
    let single = shop.train("minilm", &[], &["department"]);
    assert_eq!(
        (&single.card["kind"], &single.card["labels"]),
        (&"single".into(), &serde_json::json!(["chair", "lamp", "mug"]))
    );
    assert!(single.figure("accuracy_test_department") > 0.9, "{}", single.card);
    assert!(single.figure("f1_macro_test_department") > 0.9 && single.figure("auc_macro_test_department") > 0.95);
    let version = &single.version;
    let file = shop.path("reviews.csv");
    let create =
        format!("CREATE EXTERNAL TABLE reviews STORED AS CSV LOCATION '{file}' OPTIONS ('format.has_header' 'true')");
    // SQL finds the labels in the list, on the rows of the file; a null text has a null list.
    let rows = shop.sql(&format!(
        "{create}; WITH labelled AS (SELECT department, review IS NULL AS no_text, unnest(classify_text(review, '{version}')) AS l \
         FROM reviews) SELECT count(*), round(avg(CASE WHEN l['label'] = department THEN l['probability'] END), 1) >= 0.8, \
         round(sum(l['probability'])) FROM labelled WHERE NOT no_text"
    ));
    let texts = 500 - 500 / 41;
    assert_eq!(rows, [format!("{},true,{texts}.0", 3 * texts)]);
    let stars = shop.train("bert", &["model.loss=focal", "text.epochs_max=10"], &["stars"]);
    assert_eq!(stars.card["labels"], serde_json::json!(["1", "4", "5"]), "rating columns are classes in their order");
    let (right, most) = ("accuracy_test_stars", "accuracy_of_most_frequent_test_stars");
    assert!(stars.figure(right) > stars.figure(most) + 0.1, "{}", stars.card);

    for (encoder, settings) in [
        ("distilbert", &["model.loss=bce", "model.class_weights=balanced"][..]),
        ("gpt2", &["model.loss=focal", "train.label_smoothing=0.05"]),
        ("roberta", &["model.loss=iou", "text.max_length=38"]),
        ("bert", &["model.loss=iou", "text.strategy=frozen"]),
        ("bert", &["model.loss=crf", "model.head=crf"]),
    ] {
        let model = shop.train(encoder, settings, &["recommended", "loved"]);
        let kind = if settings.contains(&"model.head=crf") { "chain" } else { "multi" };
        assert_eq!(model.card["kind"], kind, "{settings:?}");
        for label in ["recommended", "loved"] {
            let auc = model.figure(&format!("auc_test_{label}"));
            println!("{encoder} {settings:?} {label}: AUC {auc:.3}");
            assert!(auc > 0.85, "{encoder} {settings:?} {label}: {auc}");
        }
        let p = shop.probabilities(&model, "loved", &["the mug is good and wonderful", "the mug broke after two days"]);
        assert!(p[0] > p[1], "{encoder} {settings:?}: {p:?}");
    }
    let listed = shop.done(&[], &["models", "--format", "csv"]);
    assert!(listed.contains(&format!("{version},text,,")), "{listed}");
    shop.refused(&[], &["promote", version, "--force"], 6, &["expected a night's model, got one of a text"]);
    let night = ["nightly", "--lake", &shop.path("lake"), "--date", "2026-03-01"];
    let named = format!("model.version={version}");
    shop.refused(&[&named], &night, 6, &["expected a night's model, got one of a text"]);
}

/// Fine-tuning that destroys an encoder ends with its start: the head that was trained alone, as every strategy has it.
#[test]
fn no_strategy_ends_below_the_head_that_was_trained_first() {
    let shop = Shop::new();
    let frozen = shop.train("bert", &["text.strategy=frozen"], &["recommended"]);
    assert_eq!((frozen.figure("epochs"), frozen.figure("steps")), (0.0, 0.0));
    assert!(frozen.figure("head_steps") > 5.0 && frozen.figure("loss_valid") < 0.5, "{}", frozen.card);
    let again = shop.train("bert", &["text.strategy=frozen"], &["recommended"]);
    assert_eq!(frozen.version, again.version, "same rows, seed and machine: the same weights");
    let wild = ["text.learning_rate=0.9", "text.head_learning_rate=0.9", "text.beside_learning_rate=0.9"];
    for strategy in ["text.strategy=all", "text.strategy=adapters", "text.strategy=lora"] {
        let model = shop.train("bert", &[&wild[..], &[strategy]].concat(), &["recommended"]);
        for figure in ["auc_test_recommended", "loss_valid"] {
            let (got, kept) = (model.figure(figure), frozen.figure(figure));
            assert!((got - kept).abs() < 1e-3, "{strategy} {figure}: {got} {kept}");
        }
    }
    // From a random head, the same steps reach less.
    let random = shop.train("bert", &["text.head_epochs_max=0", "text.epochs_max=1"], &["recommended"]);
    assert!(random.figure("loss_valid") > frozen.figure("loss_valid"), "{}", random.card);
    let none = task(&shop.path("reviews.csv"), &fixture("bert"), &["recommended"]);
    let none: Vec<&str> = none.iter().map(String::as_str).collect();
    let settings = ["text.strategy=frozen", "text.head_epochs_max=0"];
    shop.refused(&settings, &none, 2, &["text.head_epochs_max: expected at least 1"]);
}

/// Texts have line breaks within quotes, and the file is several times the 8 kB that are read at once.
#[test]
fn a_killed_training_resumes_to_the_same_weights() {
    let shop = Shop::new();
    let train = task(&shop.path("reviews.csv"), &fixture("bert"), &["recommended"]);
    let train: Vec<&str> = train.iter().map(String::as_str).collect();
    // Adapters start with random weights after the masked words, in whichever process.
    let settings = ["text.masked_epochs=2", "text.strategy=adapters", "text.bottleneck=8"];
    let kills = [("masked_words", 7), ("text", 3), ("text", 20)];
    shop.resumes_after_kills((&settings, &train), &kills, "text.json");
}

#[test]
fn texts_of_several_lines_are_read_from_csv() {
    let shop = Shop::new();
    let plain = std::fs::read_to_string(shop.path("reviews.csv")).unwrap();
    let broken = plain.replace(" number", "\n\"\"number\"\"\n,").replace(" is ", "\r\nis ");
    assert!(broken.len() > 20_000 && broken.lines().count() > 1500);
    std::fs::write(shop.path("lines.csv"), broken).unwrap();
    let arguments = task(&shop.path("lines.csv"), &fixture("bert"), &["recommended"]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let printed = shop.done(&["text.strategy=frozen"], &arguments);
    let version = printed.split_whitespace().nth(2).unwrap();
    let card = std::fs::read(PathBuf::from(shop.path("out/models")).join(version).join("text.json")).unwrap();
    let card: Value = serde_json::from_slice(&card).unwrap();
    let rows: f64 = ["rows_train", "rows_valid", "rows_test", "rows_left_out"]
        .iter()
        .map(|figure| card["figures"][figure].as_f64().unwrap())
        .sum();
    assert_eq!(rows, 500.0, "{card}");
    assert!(card["figures"]["auc_test_recommended"].as_f64().unwrap() > 0.85, "{card}");
}

/// One row in five has a label. The others train on masked words, unless their text is in validation or test.
#[test]
fn masked_words_use_rows_without_a_label_too() {
    let shop = Shop::new();
    let mut table = String::from("review,recommended\n");
    for (i, row) in reviews(500).lines().skip(1).enumerate() {
        let mut cells = row.split(',');
        let (review, label) = (cells.next().unwrap(), cells.next().unwrap());
        writeln!(table, "{review},{}", if i % 5 == 0 { label } else { "" }).unwrap();
    }
    std::fs::write(shop.path("reviews.csv"), table).unwrap();
    let model = shop.train("bert", &["text.masked_epochs=1", "text.epochs_max=1"], &["recommended"]);
    let labelled = model.figure("rows_train") + model.figure("rows_valid") + model.figure("rows_test");
    let more = model.figure("masked_rows_train") - model.figure("rows_train");
    // Texts without a label: all but the labelled and the empty ones; four fifths of them are for training.
    let unlabelled = 500.0 - 500.0 / 41.0 - labelled;
    assert!((0.7..0.9).contains(&(more / unlabelled)), "{more} of {unlabelled}: {}", model.card);
    let without = shop.train("bert", &["text.epochs_max=1"], &["recommended"]);
    assert_eq!(without.figure("rows_train"), model.figure("rows_train"));
}

#[test]
fn masked_words_pretrain_and_a_model_can_be_tuned_further() {
    let shop = Shop::new();
    let settings = ["text.masked_epochs=4", "text.strategy=lora", "model.loss=bce"];
    let model = shop.train("bert", &settings, &["recommended"]);
    let (before, after) = (model.figure("masked_loss_valid_before"), model.figure("masked_loss_valid"));
    assert!(after < 0.8 * before, "{before} {after}");
    let in_sql = shop.auc_in_sql(&model.version);
    assert!(in_sql > 0.9, "{in_sql}");
    // The same data, seed and machine give the same weights, so the same version.
    assert_eq!(shop.train("bert", &settings, &["recommended"]).version, model.version);
    // Masked words changed weights that LoRA alone cannot; nothing of their head is stored.
    let original = tensors(&PathBuf::from(fixture("bert")).join("model.safetensors"));
    let words = |named: &[(String, tch::Tensor)]| {
        named.iter().find(|(n, _)| n.ends_with("word_embeddings.weight")).unwrap().1.shallow_clone()
    };
    assert!(!words(&original).equal(&words(&model.weights())));
    assert!(model.weights().iter().all(|(name, _)| !name.contains("masked") && !name.contains("added")));
    // The text/ folder of a model is an encoder like any other.
    let encoder = model.folder.join("text").display().to_string();
    let further = task(&shop.path("reviews.csv"), &encoder, &["department"]);
    let further: Vec<&str> = further.iter().map(String::as_str).collect();
    let printed = shop.done(&["text.strategy=adapters"], &further);
    assert!(printed.contains("accuracy_test_department"), "{printed}");
    let causal = task(&shop.path("reviews.csv"), &fixture("gpt2"), &["recommended"]);
    let causal: Vec<&str> = causal.iter().map(String::as_str).collect();
    shop.refused(&["text.masked_epochs=1"], &causal, 2, &["text.masked_epochs: expected 0", "no mask"]);
}

#[test]
fn a_table_whose_text_does_not_decode_is_named_with_its_column() {
    let shop = Shop::new();
    let (csv, table) = (shop.path("reviews.csv"), shop.path("reviews.parquet"));
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let ctx = datafusion::prelude::SessionContext::new();
        let rows = ctx.read_csv(csv, Default::default()).await.unwrap();
        lakes::save(rows, Path::new(&table)).await;
    });
    let broken = "SELECT * EXCLUDE (review), CASE WHEN review LIKE '%number 7 %' THEN '@@@@' ELSE review END AS review FROM rows";
    lakes::break_text(Path::new(&table), broken);
    let encoder = fixture("minilm");
    let of_text = task(&table, &encoder, &["recommended"]);
    let of_table = ["train", "--task", "table", "--table", &table, "--label", "recommended"].map(String::from);
    for arguments in [&of_text[..], &of_table] {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        shop.job.refused(&[], &arguments, 3, &["reviews.parquet: column review: ", "hint: fix or leave out the file"]);
    }
}

#[test]
fn odd_texts_do_not_affect_their_batch() {
    let shop = Shop::new();
    for encoder in ["bert", "gpt2"] {
        let model = shop.train(encoder, &["text.epochs_max=2"], &["recommended"]);
        let version = &model.version;
        let rows = shop.sql(&format!(
            "WITH t AS (SELECT * FROM (VALUES (1, 'the mug is good'), (2, NULL), (3, ''), (4, '  '), \
             (5, repeat('good ', 400000)), (6, chr(1) || chr(65533)), (7, 'the mug is good')) AS v(i, t)) \
             SELECT i, classify_text(t, '{version}', 'recommended') AS p, classify_text(t, '{version}') IS NULL AS none \
             FROM t ORDER BY i"
        ));
        let cells: Vec<Vec<&str>> = rows.iter().map(|row| row.split(',').collect()).collect();
        assert_eq!(cells[1], ["2", "", "true"], "{encoder}: {rows:?}");
        for row in cells.iter().filter(|row| row[0] != "2") {
            let p: f64 = row[1].parse().unwrap_or_else(|_| panic!("{encoder}: {rows:?}"));
            assert!((0.0..=1.0).contains(&p) && row[2] == "false", "{encoder}: {row:?}");
        }
        assert_eq!(cells[0][1], cells[6][1]);
        let alone = shop.probabilities(&model, "recommended", &["the mug is good"])[0];
        assert!((alone - cells[0][1].parse::<f64>().unwrap()).abs() < 1e-5, "{encoder}");
        // Bytes are read as UTF-8, what is none of it as U+FFFD; only other types are refused.
        let bytes =
            shop.sql(&format!("SELECT classify_text(arrow_cast('caf\u{e9}', 'Binary'), '{version}', 'recommended')"));
        let text = shop.probabilities(&model, "recommended", &["caf\u{e9}"])[0];
        assert!((bytes[0].parse::<f64>().unwrap() - text).abs() < 1e-6, "{encoder}");
        let broken =
            shop.sql(&format!("SELECT classify_text(decode('ff00fe61', 'hex'), '{version}', 'recommended') > 0.0"));
        assert_eq!(broken, ["true"]);
        assert_eq!(shop.sql(&format!("SELECT classify_text(NULL, '{version}') IS NULL")), ["true"]);
        for (call, code, part) in [
            (format!("classify_text(1, '{version}')"), 2, "expected a text"),
            ("classify_text('a')".to_string(), 2, "a model version"),
            ("classify_text('a', 'text-1')".to_string(), 6, "no such text model"),
            (format!("classify_text('a', '{version}', 'size')"), 2, "labels recommended"),
            (format!("score_intents(named_struct('a', 1), '{version}')"), 6, "got one of a text"),
        ] {
            shop.refused(&[], &["sql", "-c", &format!("SELECT {call}")], code, &[part]);
        }
        // The same by way of a server.
        if clients_are_here("odd_texts_do_not_affect_their_batch") {
            let server = Server::start(&[], &["--output", &shop.path("out")]);
            let called = format!("SELECT classify_text('the mug is good', '{version}', 'recommended')");
            let served = &server.rows(&called)[0];
            assert!((served.parse::<f64>().unwrap() - alone).abs() < 1e-5, "{encoder}: {served}, {alone}");
        }
        shop.damaged_head_is_refused(version, &format!("classify_text('a', '{version}')"));
    }
}

#[test]
fn unusable_texts_are_refused_with_the_reason() {
    let shop = Shop::new();
    let (file, bert) = (shop.path("reviews.csv"), fixture("bert"));
    std::fs::write(shop.path("few.csv"), reviews(12)).unwrap();
    let gone = shop.path("nowhere");
    type Case<'a> = (Vec<String>, &'a [&'a str], i32, &'a [&'a str]);
    let cases: [Case<'_>; 12] = [
        (task(&file, &bert, &["nothing"]), &[], 2, &["--label: expected a column", "review, recommended"]),
        (task(&file, &bert, &[]), &[], 2, &["pass --label"]),
        (task(&file, &bert, &["review"]), &[], 2, &["expected another column than --text-column"]),
        (task(&file, &bert, &["same"]), &[], 3, &["label same: all", "same value, 7", "nothing to learn"]),
        (task(&file, &bert, &["none"]), &[], 3, &["at least 20 rows", "500 rows lack a label or a text"]),
        (task(&shop.path("few.csv"), &bert, &["recommended"]), &[], 3, &["at least 20 rows to train on"]),
        (task(&file, &gone, &["recommended"]), &[], 6, &["--encoder", "config.json: not found"]),
        (task(&file, &bert, &["recommended", "stars"]), &[], 3, &["label stars: expected 0 and 1"]),
        (task(&file, &bert, &["stars"]), &["model.head=crf", "model.loss=crf"], 2, &["expected sigmoid for one label"]),
        (
            task(&file, &bert, &["recommended"]),
            &["text.strategy=lora", "text.frozen_layers=1"],
            2,
            &["text.frozen_layers"],
        ),
        (
            task(&file, &bert, &["recommended"]),
            &["text.frozen_layers=3"],
            2,
            &["expected 0 to 2, the encoder's layers, got 3"],
        ),
        (task(&file, &bert, &["recommended"]), &["text.max_length=2"], 6, &["leaves none for text"]),
    ];
    for (arguments, settings, code, parts) in cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        shop.refused(settings, &arguments, code, parts);
    }
    let none = ["train", "--task", "text", "--table", &file, "--label", "recommended"];
    shop.refused(&[], &none, 2, &["pass --text-column and --encoder"]);
    let column = [&none[..], &["--text-column", "stars", "--encoder", &bert]].concat();
    shop.refused(&[], &column, 2, &["--text-column stars: expected text, got Int64"]);
    let column = [&none[..], &["--text-column", "words", "--encoder", &bert]].concat();
    shop.refused(&[], &column, 2, &["--text-column: expected a column of the table, got \"words\""]);
    assert!(!Path::new(&shop.path("out/models")).exists(), "a refused training writes nothing");
}

#[test]
fn a_text_models_output_is_a_feature_of_nights() {
    let shop = Shop::new();
    let mut queries = String::from("query,gift\n");
    for i in 0..300 {
        writeln!(queries, "{} {i},{}", if i % 2 == 0 { "gift for her" } else { "red mug" }, 1 - i % 2).unwrap();
    }
    std::fs::write(shop.path("queries.csv"), queries).unwrap();
    let (file, encoder) = (shop.path("queries.csv"), fixture("minilm"));
    let task = ["train", "--task", "text", "--table", &file, "--text-column", "query", "--encoder", &encoder];
    let printed = shop.done(&[], &[&task[..], &["--label", "gift"]].concat());
    let version = printed.split_whitespace().nth(2).unwrap();
    let taught = shop.path(&format!("out/models/{version}/text"));
    let weights = |folder: &str| tensors(&Path::new(folder).join("model.safetensors"));
    // The fixture also has a pooler, which is never read.
    let original = weights(&encoder);
    let was = |name: &str| original.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name} before"));
    assert!(weights(&taught).iter().any(|of| of != was(&of.0)), "the encoder learnt, too");
    // The unchanged example of docs/examples: its columns join the built-in features by the file's name.
    let example = include_str!("../../docs/examples/query_intent/features/user_feature_query_intent.sql")
        .replace("MODEL", version);
    std::fs::create_dir_all(shop.path("sql/features")).unwrap();
    std::fs::write(shop.path("sql/features/user_feature_query_intent.sql"), example).unwrap();
    let lake = shop.path("lake");
    let simulate = ["simulate", "--to", &lake, "--users", "200", "--items", "20", "--days", "60", "--seed", "5"];
    let simulated = Command::new(env!("CARGO_BIN_EXE_intentcast")).args(simulate).output().unwrap();
    assert!(simulated.status.success(), "{}", String::from_utf8_lossy(&simulated.stderr));
    let (folder, reads) = (format!("sql.folder={}", shop.path("sql")), format!("model.text_encoder={taught}"));
    let own = [
        &folder[..],
        &reads,
        "model.width=16",
        "model.layers=1",
        "train.epochs_max=1",
        "train.as_of_dates=2",
        "demand.as_of_dates=2",
        "demand.horizon_days=14",
    ];
    shop.done(&own, &["train", "--lake", &lake, "--date", "2026-02-20"]);
    let models = std::fs::read_dir(shop.path("out/models")).unwrap().map(|e| e.unwrap().path().join("bundle.json"));
    let bundles: Vec<PathBuf> = models.filter(|path| path.exists()).collect();
    let [bundle] = bundles.as_slice() else { panic!("expected one night's model, got {bundles:?}") };
    assert!(std::fs::read_to_string(bundle).unwrap().contains("query_gift_mean"));
    let read_by = bundle.with_file_name("text").display().to_string();
    assert!(weights(&taught) == weights(&read_by), "nights read by what was taught");
    // Every part of the users calls it.
    let night = ["nightly", "--lake", &lake, "--date", "2026-02-21"];
    shop.done(&[&own[..], &["engine.user_parts=3"]].concat(), &night);
    // A week later, a night looks back at this one's intents and reads the labels of its date by the same SQL.
    shop.done(&own, &["nightly", "--lake", &lake, "--date", "2026-02-28"]);
    let query = "SELECT count(*), count(query_gift_mean), min(query_gift_mean) >= 0.0 AND max(query_gift_max) <= 1.0, \
                 max(query_gift_max) > min(query_gift_mean) FROM user_features";
    let rows = shop.done(&own, &["sql", "--lake", &lake, "--format", "csv", "-c", query]);
    let cells: Vec<&str> = rows.lines().nth(1).unwrap().split(',').collect();
    let (users, searched): (u32, u32) = (cells[0].parse().unwrap(), cells[1].parse().unwrap());
    assert!(searched > 20 && searched <= users && cells[2..] == ["true", "true"], "{rows}");
}
