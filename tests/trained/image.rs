//! `train --task image` and `classify_image`: from files and bytes of drawn pictures to probabilities in SQL.

use std::path::Path;

use crate::support::device;
use crate::support::pictures::{PictureShop, ROWS, SHAPES, picture};

#[test]
fn a_killed_training_resumes_to_the_same_weights() {
    let shop = PictureShop::new();
    let items = shop.path("items.csv");
    let train = ["train", "--task", "image", "--table", &items, "--image-column", "picture", "--label", "shape"];
    shop.resumes_after_kills((&[], &train), &[("image", 3), ("image", 11)], "image.json");
}

#[test]
fn random_weights_learn_files_and_label_pictures_in_sql() {
    let shop = PictureShop::new();
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
    assert!(log.contains("ignored 2 rows whose picture cannot be read; first: row 6: "), "{log}");
    // The same pictures, seed and machine give the same weights to the bit, and so the same version.
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
    // No vector and no label: the null, the truncated and the empty picture.
    assert_eq!(rows, ["160,157,157,157,128,3,true,disc,true,true"]);
    assert!(log.contains("classify_image: 2 of 159 distinct images have no label; the first: "), "{log}");
    assert!(log.contains("embed_image: 2 of 159 distinct images have no vector; the first: "), "{log}");

    let (listed, _) = shop.done(&[], &["models", "--format", "csv"]);
    assert!(listed.contains(&format!("{version},image,,")), "{listed}");
    shop.refused(&[], &["promote", version, "--force"], 6, &["expected a night's model, got one of an image"]);
    let png: String = picture(1).iter().map(|byte| format!("{byte:02x}")).collect();
    let picture = format!("decode('{png}', 'hex')");
    for (call, code, part) in [
        (format!("classify_image('a text', '{version}')"), 2, "expected the bytes of an image"),
        (format!("classify_image({picture})"), 2, "a model version"),
        (format!("classify_image({picture}, 'image-1')"), 6, "no such image model"),
        (format!("classify_image({picture}, '{version}', 'size')"), 2, "labels cross, disc, frame"),
    ] {
        shop.refused(&[], &["sql", "-c", &format!("SELECT {call}")], code, &[part]);
    }
    shop.damaged_head_is_refused(version, &format!("classify_image({picture}, '{version}')"));
}

#[test]
fn each_strategy_trains_an_encoder_further_from_bytes() {
    let shop = PictureShop::new();
    let items = shop.path("items.parquet");
    let first =
        shop.train(&["image.epochs_max=2"], &["--table", &items, "--image-column", "image", "--label", "disc"]).0;
    let old = first.weights();
    let encoder = first.encoder();
    let task =
        ["--table", &items, "--image-column", "image", "--label", "red", "--label", "disc", "--encoder", &encoder];
    // Settings; prefixes of the names of weights that stay, and of some that change.
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
            // Without batch statistics, the running statistics never change.
            assert!(!moved || !name.contains("running") || same.is_empty(), "{settings:?}: {name} moved");
            // Only the head is kept where no epoch improves on it.
            let better = model.figure("loss_valid") + 1e-5 < model.figure("head_loss_valid");
            assert!(moved || !better || !other.iter().any(|of| name.starts_with(of)), "{settings:?}: {name} stayed");
        }
    }
}

#[test]
fn unusable_picture_tables_are_refused_with_the_reason() {
    let shop = PictureShop::new();
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
        (task(&items, "shape", &["red"]), &[], 3, &["at least 20 rows", "159 pictures cannot be read", "not found"]),
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
    shop.refused(
        &[],
        &[&whole[..], &["--text-column", "shape"]].concat(),
        2,
        &["--text-column cannot be used with --task image"],
    );
    shop.refused(&[], &["train", "--task", "image", "--table", &items], 2, &["pass --image-column"]);
    let bytes = task(&parquet, "image", &["red"]);
    let bytes: Vec<&str> = bytes.iter().map(String::as_str).collect();
    shop.refused(&[], &[&bytes[..], &["--image-folder", &gone]].concat(), 2, &["--image-folder: the column holds"]);
    assert!(!Path::new(&shop.path("out/models")).exists(), "a refused training writes nothing");
}
