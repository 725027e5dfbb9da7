//! Contents: a pretrained encoder reads each text and picture once, and nights, the shell and bundles use the vectors.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use intentcast::features::functions;
use intentcast::lake::stores::Location;
use intentcast::model::vision::{Architecture, CnnShape, ImageEncoder, ImageEncoderCard, ImageNetwork, Preprocess};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tch::{Device, nn};

use crate::support::lakes;
use crate::support::shop::{ENCODER, QUICK, TRAINED_ON, champion, done, night, refused, shop};

fn ask(lake: &str, output: &str, sql: &str) -> String {
    done(&["sql", "--lake", lake, "--output", output, "--date", "2026-02-21", "--format", "csv", "-c", sql])
}

#[test]
fn a_bundle_holds_its_encoder_and_each_text_is_encoded_once() {
    let (_own, lake, output) = shop();
    let first = night(&lake, &output, "2026-02-21");
    let texts: i64 = ask(&lake, &output, "SELECT count(DISTINCT content_key) FROM content_texts")
        .lines()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    // Training has encoded the texts of its dates; a night adds those of later days.
    let added = first["stages"]["contents"]["rows"].as_i64().unwrap();
    assert!(added < texts, "{added} of {texts}");
    let files = format!("{output}/state/content/text-{}/", hash(&output));
    let (rows, keys) = rows_and_keys(&files);
    assert_eq!(rows, keys, "no text is there twice");
    assert!(rows >= texts);
    // The next night has only the queries and new titles of the day between to encode.
    let second = night(&lake, &output, "2026-02-22");
    assert!(second["stages"]["contents"]["rows"].as_i64().unwrap() <= added.max(40), "{second}");
    // A changed title is encoded again, and so is every user who interacted with its item.
    let before = second["users_encoded"].as_i64().unwrap();
    let change =
        "SELECT * EXCLUDE (title), CASE item_id WHEN 'i000001' THEN 'Another name' ELSE title END AS title FROM rows";
    lakes::rewrite(Path::new(&format!("{lake}/items/part-00000.parquet")), change);
    let again = night(&lake, &output, "2026-02-22");
    assert_eq!(again["stages"]["contents"]["rows"], 1);
    let met = "SELECT count(DISTINCT user_id) FROM (SELECT user_id, unnest(recent) AS event FROM user_features) \
               WHERE event['item_id'] = 'i000001'";
    let at = ["--lake", &lake, "--output", &output, "--date", "2026-02-22", "--format", "csv", "-c", met];
    let met: i64 = done(&[&["sql"], &at[..]].concat()).lines().nth(1).unwrap().parse().unwrap();
    assert!(0 < met && met < before + again["users_kept"].as_i64().unwrap(), "{met} users met the item");
    // Ids of one person share a history, so the second id may find the state that the first one has just cached.
    let encoded = again["users_encoded"].as_i64().unwrap();
    assert!(encoded <= met && encoded * 10 >= met * 9, "{encoded} of {met}");
    // A text that no item shows any more is removed once it is old.
    let gone = "SELECT * EXCLUDE (title), CASE item_id WHEN 'i000001' THEN NULL ELSE title END AS title FROM rows";
    lakes::rewrite(Path::new(&format!("{lake}/items/part-00000.parquet")), gone);
    night(&lake, &output, "2026-02-23");
    let name = "SELECT count(*) FROM kept WHERE content_key = content_key('Another name')";
    assert_eq!(kept(&files, name), 1);
    done(&["--set", "gc.orphan_age_hours=0", "gc", "--output", &output]);
    assert_eq!(kept(&files, name), 0);
    assert!(rows_and_keys(&files).0 > 0);
}

/// Returns paths and bytes of the files below a folder.
fn files_below(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        match entry.is_dir() {
            true => files.append(&mut files_below(&entry)),
            false => drop(files.insert(entry.clone(), std::fs::read(&entry).unwrap())),
        }
    }
    files
}

#[test]
fn a_query_that_scores_writes_nothing_below_the_output() {
    let (_own, lake, output) = shop();
    night(&lake, &output, "2026-02-21");
    let title =
        "SELECT * EXCLUDE (title), CASE item_id WHEN 'i000001' THEN 'Another name' ELSE title END AS title FROM rows";
    lakes::rewrite(Path::new(&format!("{lake}/items/part-00000.parquet")), title);
    let before = files_below(Path::new(&output));
    let scores = "SELECT count(s['p_purchase']) AS users, count(recommend(s['taste'], NULL, NULL, 3)) AS lists \
                  FROM (SELECT score_intents(features) AS s FROM model_input)";
    let scored = ask(&lake, &output, scores);
    assert!(!scored.ends_with("\n0,0\n"), "{scored}");
    let after = files_below(Path::new(&output));
    let changed: Vec<&PathBuf> = after.keys().filter(|path| before.get(*path) != after.get(*path)).collect();
    assert!(changed.is_empty() && before.len() == after.len(), "{changed:?}");
    // The night encodes the new title, because the query did not store its vector.
    assert_eq!(night(&lake, &output, "2026-02-21")["stages"]["contents"]["rows"], 1);
}

#[test]
fn another_encoder_encodes_all_texts_and_gc_drops_old_vectors() {
    let (_own, lake, output) = shop();
    night(&lake, &output, "2026-02-21");
    let (first, version) = (hash(&output), champion(&output));
    let files = |hash: &str| format!("{output}/state/content/text-{hash}/");
    let before = rows_and_keys(&files(&first));
    // The other encoder has other weights and another width.
    let other = format!("model.text_encoder={}", ENCODER.replace("minilm", "half"));
    let printed = done(&["--set", &other, "train", "--lake", &lake, "--output", &output, "--date", TRAINED_ON]);
    done(&["promote", "--output", &output, "--force", printed.split_whitespace().nth(1).unwrap()]);
    let second = hash(&output);
    assert_ne!(first, second);
    let report = night(&lake, &output, "2026-02-22");
    // No state of the first model is valid. Ids of one person share one, which the second of them finds.
    let [encoded, kept] = ["users_encoded", "users_kept"].map(|figure| report[figure].as_i64().unwrap());
    assert!(report["published"].as_bool() == Some(true) && kept * 10 < encoded, "{report}");
    assert!(rows_and_keys(&files(&second)).0 > 0);
    assert_eq!(rows_and_keys(&files(&first)), before, "the first encoder's vectors stay as they were");

    // Vectors of the other encoder in the first one's folder are ignored.
    for file in std::fs::read_dir(files(&second)).unwrap().map(|file| file.unwrap()) {
        let to = format!("{}/strange-{}", files(&first), file.file_name().to_str().unwrap());
        std::fs::copy(file.path(), to).unwrap();
    }
    let back = format!("model.version={version}");
    let night_of = |date: &str| {
        let at = ["nightly", "--lake", &lake, "--output", &output, "--date", date, "--format", "json"];
        serde_json::from_str::<serde_json::Value>(done(&[&["--set", &back], &at[..]].concat()).trim()).unwrap()
    };
    assert_eq!(night_of("2026-02-23")["published"].as_bool(), Some(true));

    // Once no model uses the second encoder, its vectors are removed.
    std::fs::remove_dir_all(format!("{output}/models/{}", champion(&output))).unwrap();
    done(&["promote", "--output", &output, "--force", &version]);
    done(&["--set", "gc.orphan_age_hours=0", "gc", "--output", &output]);
    let left = |hash: &str| std::fs::read_dir(files(hash)).into_iter().flatten().count();
    assert!(left(&second) == 0 && left(&first) > 0);
}

#[test]
fn damaged_and_foreign_vector_files_change_no_score() {
    let (own, lake, output) = shop();
    night(&lake, &output, "2026-02-21");
    let twin = own.path().join("twin").display().to_string();
    lakes::copy(Path::new(&output), Path::new(&twin));
    let folder = format!("{twin}/state/content/text-{}", hash(&twin));
    for file in std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()) {
        // Vectors of the encoder's dimension from another source.
        let strange = file.with_file_name(format!("0-{}", file.file_name().unwrap().to_str().unwrap()));
        std::fs::copy(&file, &strange).unwrap();
        lakes::rewrite(&strange, "SELECT content_key, array_reverse(vectors) AS vectors, dims FROM rows");
        let half = std::fs::read(&file).unwrap();
        std::fs::write(&file, &half[..half.len() / 2]).unwrap();
    }
    let scores = |output: &str| -> Vec<(String, f64)> {
        night(&lake, output, "2026-02-22");
        let rows = ask(&lake, output, "SELECT user_id, p_purchase FROM intent ORDER BY user_id");
        rows.lines()
            .skip(1)
            .map(|row| row.split_once(',').unwrap())
            .map(|(u, p)| (u.into(), p.parse().unwrap()))
            .collect()
    };
    let (whole, repaired) = (scores(&output), scores(&twin));
    assert!(whole.len() > 100 && whole.len() == repaired.len());
    for ((user, p), (other, q)) in whole.iter().zip(&repaired) {
        assert!(user == other && (p - q).abs() < 1e-5, "{user}: {p} and {q}");
    }
    // Ignored files are removed once they are old.
    let strange = || {
        std::fs::read_dir(&folder)
            .unwrap()
            .filter(|f| f.as_ref().unwrap().file_name().to_str().unwrap().starts_with("0-"))
            .count()
    };
    assert!(strange() > 0);
    done(&["--set", "gc.orphan_age_hours=0", "gc", "--output", &twin]);
    assert!(strange() == 0 && rows_and_keys(&format!("{folder}/")).0 > 0);
}

/// Flips one bit of the last weight of a file; the weight stays a number.
fn flip_a_bit(file: &str) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = bytes.len() - 4;
    bytes[at] ^= 1;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn an_encoder_that_differs_from_training_is_refused() {
    let (_own, lake, output) = shop();
    night(&lake, &output, "2026-02-21");
    let whole = std::fs::read_to_string(format!("{output}/tables/current.json")).ok();
    let scores = "SELECT sum(p_purchase) FROM intent";
    let before = ask(&lake, &output, scores);
    flip_a_bit(&format!("{output}/models/{}/text/model.safetensors", champion(&output)));
    let next = ["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-22"];
    let errors = refused(&next, 6);
    assert!(errors.contains(&format!("/text: expected the encoder {}", hash(&output))), "{errors}");
    assert!(errors.contains("its files changed") && errors.contains("hint: restore the files of text/"), "{errors}");
    assert_eq!(ask(&lake, &output, scores), before, "what was published stays");
    assert_eq!(std::fs::read_to_string(format!("{output}/tables/current.json")).ok(), whole);
}

#[test]
fn an_encoder_that_changes_during_training_is_refused() {
    let (own, lake, output) = shop();
    let folder = own.path().join("encoder");
    lakes::copy(Path::new(ENCODER), &folder);
    let encoder = format!("model.text_encoder={}", folder.display());
    let before = champion(&output);
    let mut child = Command::new(env!("CARGO_BIN_EXE_intentcast"))
        .args(QUICK)
        .args(["--set", &encoder, "--set", "train.epochs_max=30", "--set", "train.patience_epochs=30"])
        .args(["train", "--lake", &lake, "--output", &output, "--date", TRAINED_ON])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap) {
        if line.contains("intents: epoch 1:") {
            flip_a_bit(&folder.join("model.safetensors").display().to_string());
        }
        said += &line;
    }
    assert_eq!(child.wait().unwrap().code(), Some(6), "{said}");
    assert!(said.contains("/text: expected the encoder") && said.contains("train again"), "{said}");
    assert_eq!(champion(&output), before);
    let listed = done(&["models", "--output", &output]);
    assert_eq!(listed.matches("20260220-").count(), 1, "{listed}");
}

/// Counts the rows and the distinct keys of the files of a folder.
fn rows_and_keys(files: &str) -> (i64, i64) {
    ["count(*)", "count(DISTINCT content_key)"].map(|n| kept(files, &format!("SELECT {n} FROM kept"))).into()
}

/// Returns the number that a query over the files of a folder gives.
fn kept(files: &str, query: &str) -> i64 {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let ctx = SessionContext::new();
        functions::register(&ctx, &Default::default(), "2026-02-21".parse().unwrap()).unwrap();
        ctx.register_parquet("kept", files, Default::default()).await.unwrap();
        let rows = ctx.sql(query).await.unwrap().collect().await.unwrap();
        rows[0].column(0).as_primitive::<Int64Type>().value(0)
    })
}

/// Returns the hash of the champion's text encoder.
fn hash(output: &str) -> String {
    let version = champion(output);
    let card = std::fs::read(format!("{output}/models/{version}/bundle.json")).unwrap();
    let card: serde_json::Value = serde_json::from_slice(&card).unwrap();
    assert!(Path::new(&format!("{output}/models/{version}/text/model.safetensors")).exists());
    card["text"]["hash"].as_str().unwrap().into()
}

#[test]
fn embed_text_places_similar_texts_close_together() {
    let (_own, lake, output) = shop();
    let sql = format!(
        "SELECT embed_text('a mug') = embed_text('a mug', '{ENCODER}') AS same, \
         embed_text(CAST(NULL AS VARCHAR)) IS NULL AS null_stays, array_length(embed_text(' ')) AS width"
    );
    let allowed = format!("model.text_encoder={ENCODER}");
    let said = done(&["--set", &allowed, "sql", "--output", &output, "--format", "csv", "-c", &sql]);
    assert_eq!(said, "same,null_stays,width\ntrue,true,24\n");
    // A folder that the configuration does not name is not read.
    let elsewhere = refused(&["sql", "--output", &output, "-c", "SELECT embed_text('a', '/etc/')"], 2);
    assert!(elsewhere.contains("functions.folders"), "{elsewhere}");
    let title = ask(&lake, &output, "SELECT title FROM items WHERE title IS NOT NULL ORDER BY item_id LIMIT 1");
    let title = title.lines().nth(1).unwrap();
    let near = include_str!("../../sql/views/similar_items.sql").replace("a warm light for the bedroom", title);
    let found = ask(&lake, &output, &near);
    assert!(found.lines().nth(1).unwrap().contains(title), "{found}");
    assert_eq!(found.lines().count(), 21);
}

/// Pictures of `tests/fixtures/vision/`, and one that cannot be read.
const PICTURES: [&str; 4] = ["photo.jpg", "rgba.png", "lossy.webp", "grey16.png"];
const UNREADABLE: &str = "X'00'";

/// Returns the bytes of a picture as a SQL literal.
fn literal(picture: &str) -> String {
    let path = format!("{}/tests/fixtures/vision/pictures/{picture}", env!("CARGO_MANIFEST_DIR"));
    let bytes = std::fs::read(path).unwrap();
    format!("X'{}'", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Gives the items of a lake pictures in turn, and every tenth item bytes that are no picture.
fn show(lake: &str, change: &str) {
    let number = "CAST(substr(item_id, 2) AS INT)";
    let turns: Vec<String> =
        (0..).zip(PICTURES).map(|(turn, picture)| format!("WHEN {turn} THEN {}", literal(picture))).collect();
    let sql = format!(
        "SELECT * EXCLUDE (image), CASE {change} WHEN {number} % 10 = 9 THEN {UNREADABLE} \
         ELSE CASE {number} % {} {} END END AS image FROM rows",
        PICTURES.len(),
        turns.join(" ")
    );
    lakes::rewrite(Path::new(&format!("{lake}/items/part-00000.parquet")), &sql);
}

/// Writes a small image encoder of random weights into a folder, as training does.
fn image_encoder(folder: &Path) -> String {
    let mut card = ImageEncoderCard::new(Architecture::Cnn, Preprocess { resize: 40, crop: 32, ..Default::default() });
    card.cnn = Some(CnnShape { channels: vec![8, 16], width: 12 });
    let store = nn::VarStore::new(Device::Cpu);
    ImageNetwork::new(&store.root(), &card);
    let place = folder.join("encoder").display().to_string();
    let location = Location::open(&place, &Default::default()).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(ImageEncoder::write(&location, &card, &store)).unwrap();
    place
}

#[test]
fn pictures_are_read_once_each_and_bad_ones_are_ignored() {
    let (own, lake, output) = shop();
    let encoder = image_encoder(own.path());
    show(&lake, "");
    let read = format!("model.image_encoder={encoder}");
    std::fs::remove_dir_all(format!("{output}/models")).unwrap();
    done(&["--set", &read, "train", "--lake", &lake, "--output", &output, "--date", TRAINED_ON]);
    let version = std::fs::read_to_string(format!("{output}/models/champion")).unwrap();
    let card = std::fs::read(format!("{output}/models/{}/bundle.json", version.trim())).unwrap();
    let card: serde_json::Value = serde_json::from_slice(&card).unwrap();
    assert_eq!(card["intent"]["content_dims"][1], 12, "the network's vectors, not the lake's");
    assert!(Path::new(&format!("{output}/models/{}/image/model.safetensors", version.trim())).exists());
    let files = format!("{output}/state/content/image-{}/", card["image"]["hash"].as_str().unwrap());
    assert_eq!(rows_and_keys(&files), (4, 4));
    // Training has encoded them all. A changed picture adds one vector, and users of its item are encoded again.
    assert_eq!(night(&lake, &output, "2026-02-21")["stages"]["contents"]["rows"], 0);
    show(&lake, &format!("WHEN item_id = 'i000001' THEN {}", literal("tall.png")));
    let again = night(&lake, &output, "2026-02-21");
    assert_eq!((again["published"].as_bool(), &again["stages"]["contents"]["rows"]), (Some(true), &1.into()));
    assert!(again["users_encoded"].as_i64().unwrap() > 0 && again["users_kept"].as_i64().unwrap() > 0, "{again}");
    // SQL uses the model's encoder; an unreadable picture is null and does not affect its neighbours.
    let asked = "SELECT count(*) AS items, count(embed_image(image)) AS read, \
                 max(array_length(embed_image(image))) AS width FROM items WHERE image IS NOT NULL";
    assert_eq!(ask(&lake, &output, asked), "items,read,width\n30,27,12\n");
    let refusal = "SELECT embed_image(title) FROM items";
    let text = refused(&["sql", "--lake", &lake, "--output", &output, "--date", "2026-02-21", "-c", refusal], 2);
    assert!(text.contains("embed_image: expected the bytes of an image"), "{text}");
    let file = format!("{output}/models/{}/image/model.safetensors", version.trim());
    let whole = std::fs::read(&file).unwrap();
    flip_a_bit(&file);
    let errors = refused(&["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-22"], 6);
    assert!(errors.contains("/image: expected the encoder"), "{errors}");
    std::fs::write(&file, whole).unwrap();
    // A picture that no item shows any more is removed once it is old.
    show(&lake, "");
    night(&lake, &output, "2026-02-22");
    assert_eq!(rows_and_keys(&files), (5, 5));
    done(&["--set", "gc.orphan_age_hours=0", "gc", "--output", &output]);
    assert_eq!(rows_and_keys(&files), (4, 4));
    assert_eq!(night(&lake, &output, "2026-02-23")["stages"]["contents"]["rows"], 0);
}

/// Videos with frames, some of which differ in length.
#[test]
fn a_video_of_frames_moves_scores_and_ragged_ones_are_null() {
    let (_own, lake, output) = shop();
    let items = format!("{lake}/items/part-00000.parquet");
    let frames = |of: &str| {
        format!(
            "SELECT *, CASE {of} WHEN CAST(substr(item_id, 2) AS INT) % 7 = 0 \
             THEN make_array(make_array(1.0, 2.0), make_array(3.0)) \
             ELSE make_array(make_array(1.0, CAST(substr(item_id, 2) AS DOUBLE)), make_array(0.5, -1.0)) END \
             AS video_frames FROM rows"
        )
    };
    let plain = std::fs::read(&items).unwrap();
    lakes::rewrite(Path::new(&items), &frames(""));
    std::fs::remove_dir_all(format!("{output}/models")).unwrap();
    done(&["train", "--lake", &lake, "--output", &output, "--date", TRAINED_ON]);
    let first = night(&lake, &output, "2026-02-21");
    let (rows, keys) = rows_and_keys(&format!("{output}/state/content/video/"));
    assert_eq!((rows, keys), (25, 25), "30 items, 5 of them with frames of two lengths");
    assert_eq!(first["stages"]["contents"]["rows"], 55, "30 pictures' vectors and 25 videos");
    std::fs::write(&items, plain).unwrap();
    let other = "WHEN item_id = 'i000001' THEN make_array(make_array(0.5, -1.0), make_array(1.0, 1.0))";
    lakes::rewrite(Path::new(&items), &frames(other));
    let again = night(&lake, &output, "2026-02-21");
    assert_eq!(again["stages"]["contents"]["rows"], 1, "the order of frames is another video: {again}");
    assert!(again["users_encoded"].as_i64().unwrap() > 0, "{again}");
}
