//! `train --task image` and `classify_image`: from files and bytes of drawn pictures to probabilities in SQL.

use arrow::array::{ArrayRef, BinaryArray, Int64Array, RecordBatch};
use image::{ImageFormat, Rgb, RgbImage};
use parquet::arrow::ArrowWriter;
use serde_json::Value;
use std::fmt::Write;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::support::device;
use crate::support::job::Job;

const ROWS: u32 = 160;
const SHAPES: [&str; 3] = ["cross", "disc", "frame"];
/// Small pictures and few epochs: random weights learn these shapes in a second.
const SETTINGS: [&str; 3] = ["image.side_pixels=16", "image.epochs_max=6", "train.patience_epochs=6"];

fn draw(what: &str, row: u32) -> u32 {
    u32::from(blake3::hash(format!("{what} {row}").as_bytes()).as_bytes()[0])
}

/// What a picture shows: which of the shapes, and whether in red.
fn shown(row: u32) -> (usize, bool) {
    (draw("shape", row) as usize % 3, draw("red", row) < 128)
}

/// A shape somewhere on a dark ground, with noise; every third is a JPEG.
fn picture(row: u32) -> Vec<u8> {
    let (shape, red) = shown(row);
    let (x0, y0) = (9 + draw("x", row) as i32 % 6, 9 + draw("y", row) as i32 % 6);
    let drawn = RgbImage::from_fn(24, 24, |x, y| {
        let (dx, dy) = ((x as i32 - x0).abs(), (y as i32 - y0).abs());
        let on = match shape {
            0 => dx.min(dy) < 2 && dx.max(dy) < 8,
            1 => dx * dx + dy * dy < 36,
            _ => (5..7).contains(&dx.max(dy)),
        };
        let noise = draw(&format!("{x} {y}"), row) as u8 / 8;
        match (on, red) {
            (false, _) => Rgb([noise, noise, noise + 20]),
            (true, true) => Rgb([200 + noise, 60, 60]),
            (true, false) => Rgb([60, 60, 200 + noise]),
        }
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    let format = if row.is_multiple_of(3) { ImageFormat::Jpeg } else { ImageFormat::Png };
    drawn.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Names as shops have them: some that a URL would write in another way, and one that begins with a step to nowhere.
fn file(row: u32) -> String {
    match row % 40 {
        9 => format!("images/{row} 50%20 #.bin"),
        10 => format!("images/é?{row}.bin"),
        11 => format!("./images//{row}.bin"),
        _ => format!("images/{row}.bin"),
    }
}

/// `items.csv` names files below `images/`; `items.parquet` holds their bytes. In both, row 5 has no picture, row 6 one that
/// is cut off, and row 7 no file; row 8 has no label.
pub struct Shop {
    job: Job,
}

impl Deref for Shop {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl Shop {
    pub fn new() -> Self {
        let shop = Self { job: Job::new(&SETTINGS) };
        std::fs::create_dir(shop.path("images")).unwrap();
        let mut table = String::from("picture,shape,red,disc,same,number\n");
        let (mut bytes, mut reds, mut discs) = (Vec::new(), Vec::new(), Vec::new());
        for row in 1..=ROWS {
            let (whole, file) = (picture(row), file(row));
            let kept = if row == 6 { &whole[..whole.len() / 2] } else { &whole[..] };
            if row != 7 {
                std::fs::write(shop.path(&file), kept).unwrap();
            }
            let (shape, red) = shown(row);
            let name = if row == 5 { String::new() } else { file };
            let label = if row == 8 { "" } else { SHAPES[shape] };
            writeln!(table, "{name},{label},{},{},7,{row}", u8::from(red), u8::from(shape == 1)).unwrap();
            bytes.push(match row {
                5 => None,
                7 => Some(Vec::new()),
                _ => Some(kept.to_vec()),
            });
            reds.push((row != 8).then_some(i64::from(red)));
            discs.push(i64::from(shape == 1));
        }
        std::fs::write(shop.path("items.csv"), table).unwrap();
        let columns: [(&str, ArrayRef); 4] = [
            ("row", Arc::new(Int64Array::from_iter_values(1..=i64::from(ROWS)))),
            ("image", Arc::new(bytes.iter().map(Option::as_deref).collect::<BinaryArray>())),
            ("red", Arc::new(Int64Array::from(reds))),
            ("disc", Arc::new(Int64Array::from(discs))),
        ];
        let rows = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap();
        let file = std::fs::File::create(shop.path("items.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, rows.schema(), None).unwrap();
        writer.write(&rows).unwrap();
        writer.close().unwrap();
        shop
    }

    /// Trains, opens what was written, and gives the log, too.
    pub fn train(&self, settings: &[&str], task: &[&str]) -> (Model, String) {
        let (printed, log) = self.done(settings, &[&["train", "--task", "image"], task].concat());
        let version = printed.split_whitespace().nth(2).unwrap().to_string();
        assert!(printed.contains(&format!("image model {version}")), "{printed}");
        let folder = PathBuf::from(self.path("out/models")).join(&version);
        let card = serde_json::from_slice(&std::fs::read(folder.join("image.json")).unwrap()).unwrap();
        (Model { version, folder, card }, log)
    }

    /// The rows of a query over the Parquet table `items`, as CSV without a header, and the log.
    fn sql(&self, settings: &[&str], query: &str) -> (Vec<String>, String) {
        let items = self.path("items.parquet");
        let query = format!("CREATE EXTERNAL TABLE items STORED AS PARQUET LOCATION '{items}'; {query}");
        let (printed, log) = self.done(settings, &["sql", "--format", "csv", "-c", &query]);
        (printed.lines().skip(1).map(String::from).collect(), log)
    }
}

pub struct Model {
    pub version: String,
    pub folder: PathBuf,
    card: Value,
}

impl Model {
    fn figure(&self, name: &str) -> f64 {
        self.card["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {}", self.card))
    }

    fn weights(&self) -> Vec<(String, tch::Tensor)> {
        let mut named = tch::Tensor::read_safetensors(self.folder.join("image/model.safetensors")).unwrap();
        named.sort_by(|a, b| a.0.cmp(&b.0));
        named
    }

    fn encoder(&self) -> String {
        self.folder.join("image").display().to_string()
    }
}

#[test]
fn a_training_that_was_killed_ends_with_the_weights_of_one_that_was_not() {
    let shop = Shop::new();
    let items = shop.path("items.csv");
    let train = ["train", "--task", "image", "--table", &items, "--image-column", "picture", "--label", "shape"];
    shop.goes_on_after_kills((&[], &train), &[("image", 3), ("image", 11)], "image.json");
}

#[test]
fn random_weights_learn_files_and_label_pictures_in_sql() {
    let shop = Shop::new();
    let items = shop.path("items.csv");
    let task = ["--table", &items, "--image-column", "picture", "--label", "shape"];
    let (model, log) = shop.train(&[], &task);
    let auc = model.figure("auc_macro_test_shape");
    println!("shapes: AUC {auc:.3}, {:.1} s", model.figure("train_seconds"));
    assert!(auc > 0.9 && model.figure("accuracy_test_shape") > 0.7, "{}", model.card);
    assert_eq!((&model.card["kind"], &model.card["labels"]), (&"single".into(), &serde_json::json!(SHAPES)));
    assert_eq!((model.figure("pictures_refused"), model.figure("rows_left_out")), (2.0, 2.0));
    let rows = ["rows_train", "rows_valid", "rows_test"].map(|part| model.figure(part)).iter().sum::<f64>();
    assert_eq!(rows, f64::from(ROWS) - 4.0);
    assert!(log.contains("2 rows whose picture can not be read are left out; the first: row 6: "), "{log}");
    // Same pictures, seed and machine: the same weights to the bit, and so the same version.
    if device::repeats_to_the_bit() {
        assert_eq!(shop.train(&[], &task).0.version, model.version);
    }

    let (version, encoder) = (&model.version, model.encoder());
    let allowed = format!("functions.folders={}", shop.path("out/models"));
    let (rows, log) = shop.sql(
        &[&allowed],
        &format!(
            "WITH said AS (SELECT row, image IS NULL AS none, disc, classify_image(image, '{version}') AS labels, \
             classify_image(image, '{version}', 'disc') AS p, embed_image(image, '{encoder}') AS v FROM items) \
             SELECT count(*), count(labels), count(p), count(v), min(array_length(v)), min(array_length(labels)), \
             max(abs(labels[2]['probability'] - p)) < 1e-9, min(labels[2]['label']), \
             avg(CASE WHEN disc = 1 THEN p END) - avg(CASE WHEN disc = 0 THEN p END) > 0.5, \
             max(abs(labels[1]['probability'] + labels[2]['probability'] + labels[3]['probability'] - 1.0)) < 1e-5 FROM said"
        ),
    );
    // Without a vector or label: the null, the cut off one, and the empty one.
    assert_eq!(rows, ["160,157,157,157,128,3,true,disc,true,true"]);
    assert!(log.contains("classify_image: 2 of 159 different pictures have no label; the first: "), "{log}");
    assert!(log.contains("embed_image: 2 of 159 different pictures have no vector; the first: "), "{log}");

    let (listed, _) = shop.done(&[], &["models", "--format", "csv"]);
    assert!(listed.contains(&format!("{version},image,,")), "{listed}");
    shop.refused(&[], &["models", "--promote", version], 6, &["expected a night's model, got one of an image"]);
    let png: String = picture(1).iter().map(|byte| format!("{byte:02x}")).collect();
    let picture = format!("decode('{png}', 'hex')");
    for (call, code, part) in [
        (format!("classify_image('a text', '{version}')"), 2, "expected the bytes of a picture"),
        (format!("classify_image({picture})"), 2, "a model version"),
        (format!("classify_image({picture}, 'image-1')"), 6, "no such image model"),
        (format!("classify_image({picture}, '{version}', 'size')"), 2, "labels cross, disc, frame"),
    ] {
        shop.refused(&[], &["sql", "-c", &format!("SELECT {call}")], code, &[part]);
    }
    shop.damaged_head_is_refused(version, &format!("classify_image({picture}, '{version}')"));
}

#[test]
fn a_taught_encoder_learns_further_from_bytes_by_each_strategy() {
    let shop = Shop::new();
    let items = shop.path("items.parquet");
    let first =
        shop.train(&["image.epochs_max=2"], &["--table", &items, "--image-column", "image", "--label", "disc"]).0;
    let old = first.weights();
    let encoder = first.encoder();
    let task =
        ["--table", &items, "--image-column", "image", "--label", "red", "--label", "disc", "--encoder", &encoder];
    // Settings; the beginnings of names whose weights stay, and of some that do not.
    let cases: [(&[&str], &[&str], &[&str]); 3] = [
        (&["image.strategy=frozen"], &["blocks", "outputs"], &[]),
        (
            &["image.frozen_stages=1", "image.stage_decay=0.5", "model.loss=crf", "model.head=crf"],
            &["blocks.0"],
            &["blocks.1.conv", "outputs"],
        ),
        (
            &["image.norm_statistics=batch", "image.learning_rate=0.001", "model.loss=focal"],
            &[],
            &["blocks.0.norm.running_mean"],
        ),
    ];
    for (settings, same, other) in cases {
        let (model, _) =
            shop.train(&[settings, &["image.epochs_max=2", "train.memory_bytes_max=1000"]].concat(), &task);
        let kind = if settings.contains(&"model.head=crf") { "chain" } else { "multi" };
        assert_eq!((&model.card["kind"], &model.card["encoder"]), (&kind.into(), &encoder.clone().into()));
        assert_eq!((model.figure("pictures_refused"), model.figure("rows_left_out")), (2.0, 2.0));
        let auc = ["red", "disc"].map(|label| model.figure(&format!("auc_test_{label}")));
        println!("{settings:?}: AUC {auc:?}, {} weights trained", model.figure("parameters_trained"));
        assert!(auc.iter().all(|auc| *auc > 0.8), "{settings:?}: {auc:?}");
        for ((name, was), (_, is)) in old.iter().zip(model.weights()) {
            let moved = !was.equal(&is);
            assert!(!moved || !same.iter().any(|kept| name.starts_with(kept)), "{settings:?}: {name} moved");
            // Without batch statistics, running ones are never touched.
            assert!(!moved || !name.contains("running") || same.is_empty(), "{settings:?}: {name} moved");
            // The head alone is kept where no epoch does better.
            let better = model.figure("loss_valid") + 1e-5 < model.figure("head_loss_valid");
            assert!(moved || !better || !other.iter().any(|of| name.starts_with(of)), "{settings:?}: {name} stayed");
        }
    }
}

#[test]
fn what_cannot_be_learnt_of_pictures_is_refused_with_the_reason() {
    let shop = Shop::new();
    let (items, parquet, gone) = (shop.path("items.csv"), shop.path("items.parquet"), shop.path("nowhere"));
    let elsewhere = shop.path("elsewhere.csv");
    std::fs::write(&elsewhere, "picture,red\nimages/1.bin,1\n../images/2.bin,0\n").unwrap();
    let task = |table: &str, column: &str, labels: &[&str]| -> Vec<String> {
        let mut words = vec!["train", "--task", "image", "--table", table, "--image-column", column];
        labels.iter().for_each(|label| words.extend(["--label", label]));
        words.into_iter().map(String::from).collect()
    };
    type Case<'a> = (Vec<String>, &'a [&'a str], i32, &'a [&'a str]);
    let cases: [Case<'_>; 10] = [
        (task(&items, "picture", &[]), &[], 2, &["pass --label"]),
        (task(&items, "photo", &["red"]), &[], 2, &["--image-column: expected a column of the table, got \"photo\""]),
        (task(&items, "picture", &["picture"]), &[], 2, &["expected another column than --image-column"]),
        (task(&items, "number", &["red"]), &[], 2, &["expected bytes of pictures, or text", "got Int64"]),
        (task(&items, "picture", &["same"]), &[], 3, &["label same: all", "nothing to learn"]),
        (task(&items, "shape", &["red"]), &[], 3, &["at least 20 rows", "159 pictures can not be read", "not found"]),
        (task(&elsewhere, "picture", &["red"]), &[], 3, &["row 2: expected a path below", "\"../images/2.bin\""]),
        (task(&items, "picture", &["red"]), &["image.strategy=frozen"], 2, &["without --encoder"]),
        (task(&items, "picture", &["red"]), &["image.batch_rows=1"], 2, &["image.batch_rows: expected 4"]),
        (task(&parquet, "row", &["red", "row"]), &[], 2, &["expected another column than --image-column"]),
    ];
    for (arguments, settings, code, parts) in cases {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        shop.refused(settings, &arguments, code, parts);
    }
    let whole = task(&items, "picture", &["red"]);
    let whole: Vec<&str> = whole.iter().map(String::as_str).collect();
    shop.refused(&[], &[&whole[..], &["--encoder", &gone]].concat(), 6, &["--encoder", "config.json is missing"]);
    shop.refused(&[], &[&whole[..], &["--text-column", "shape"]].concat(), 2, &["--text-column: belongs to another"]);
    shop.refused(&[], &["train", "--task", "image", "--table", &items], 2, &["pass --image-column"]);
    let bytes = task(&parquet, "image", &["red"]);
    let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
    shop.refused(&[], &[&bytes[..], &["--image-folder", &gone]].concat(), 2, &["--image-folder: the column holds"]);
    assert!(!Path::new(&shop.path("out/models")).exists(), "a refused training writes nothing");
}
