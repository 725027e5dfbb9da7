//! What texts and pictures say: read by a pretrained encoder, once a text, and seen by nights, by the shell and in the bundle.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use std::path::Path;

use crate::nightly::{ENCODER, done, night, refused, shop};
use crate::support::lakes;

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
    // Training has read the texts of its dates; a night adds those of the days since.
    let added = first["stages"]["contents"]["rows"].as_i64().unwrap();
    assert!(added < texts, "{added} of {texts}");
    let files = format!("{output}/state/content/text-{}/", hash(&output));
    let (rows, keys) = rows_and_keys(&files);
    assert_eq!(rows, keys, "no text is there twice");
    assert!(rows >= texts);
    // Nothing is new on the next night but what was typed on the day between and the day's new titles.
    let second = night(&lake, &output, "2026-02-22");
    assert!(second["stages"]["contents"]["rows"].as_i64().unwrap() <= added.max(40), "{second}");
    // Another title is read anew; who met its item is encoded again.
    let before = second["users_encoded"].as_i64().unwrap();
    let change =
        "SELECT * EXCLUDE (title), CASE item_id WHEN 'i000001' THEN 'Another name' ELSE title END AS title FROM rows";
    lakes::rewrite(Path::new(&format!("{lake}/items/part-00000.parquet")), change);
    let again = night(&lake, &output, "2026-02-22");
    assert_eq!(again["stages"]["contents"]["rows"], 1);
    assert!(again["users_encoded"].as_i64().unwrap() > 0, "{before} {again}");
}

/// Rows and distinct keys of the files of a folder.
fn rows_and_keys(files: &str) -> (i64, i64) {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let ctx = SessionContext::new();
        ctx.register_parquet("kept", files, Default::default()).await.unwrap();
        let counts = "SELECT count(*), count(DISTINCT content_key) FROM kept";
        let rows = ctx.sql(counts).await.unwrap().collect().await.unwrap();
        let [rows, keys] = [0, 1].map(|c| rows[0].column(c).as_primitive::<Int64Type>().value(0));
        (rows, keys)
    })
}

/// The hash of the champion's text encoder.
fn hash(output: &str) -> String {
    let version = std::fs::read_to_string(format!("{output}/models/champion")).unwrap();
    let card = std::fs::read(format!("{output}/models/{}/bundle.json", version.trim())).unwrap();
    let card: serde_json::Value = serde_json::from_slice(&card).unwrap();
    assert!(Path::new(&format!("{output}/models/{}/text/model.safetensors", version.trim())).exists());
    card["text"]["hash"].as_str().unwrap().into()
}

#[test]
fn embed_text_gives_the_encoders_vectors_and_nearest_are_those_that_say_the_same() {
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
    let near = include_str!("../sql/views/similar_items.sql").replace("a warm light for the bedroom", title);
    let found = ask(&lake, &output, &near);
    assert!(found.lines().nth(1).unwrap().contains(title), "{found}");
    assert_eq!(found.lines().count(), 21);
}
