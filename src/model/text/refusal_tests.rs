//! Tests of damaged folders and unusual texts: each defect is put into a copy of a good folder and must be refused by
//! name; each unusual text must have a stated result.

use serde_json::{Value, json};
use std::collections::HashMap;
use tch::{Kind, Tensor};

use super::encoder::{EncoderSettings, TextEncoder};
use super::weight_loader::{INDEX, SINGLE_FILE};
use crate::config::S3Config;
use crate::failure::Failure;
use crate::lake::stores::Location;
use crate::model::weights;

/// Copies a fixture into memory, where a test may damage it.
async fn copy(fixture: &str) -> Location {
    let at = format!("{}/tests/fixtures/text/{fixture}", env!("CARGO_MANIFEST_DIR"));
    let from = Location::open(&at, &S3Config::default()).unwrap();
    let to = Location::open(&format!("memory://{}", uuid::Uuid::new_v4()), &S3Config::default()).unwrap().folder("m");
    for object in from.list().await.unwrap() {
        let name = object.location.as_ref().strip_prefix(from.prefix.as_ref()).unwrap().trim_matches('/').to_string();
        to.write(&name, from.read(&name).await.unwrap()).await.unwrap();
    }
    to
}

async fn open(folder: &Location) -> TextEncoder {
    TextEncoder::open(folder, EncoderSettings::default()).await.unwrap()
}

async fn refused(folder: &Location) -> Failure {
    let failure = TextEncoder::open(folder, EncoderSettings::default()).await.unwrap_err();
    assert_eq!(failure.kind.exit_code(), 6, "{failure}");
    failure
}

async fn change_json(folder: &Location, name: &str, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&folder.read(name).await.unwrap()).unwrap();
    change(&mut value);
    folder.write(name, value.to_string()).await.unwrap();
}

async fn change_weights(folder: &Location, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let mut tensors = weights::tensors_from_bytes(&folder.read(SINGLE_FILE).await.unwrap()).unwrap();
    change(&mut tensors);
    let named: Vec<_> = tensors.into_iter().collect();
    folder.write(SINGLE_FILE, weights::tensors_to_bytes(&named).unwrap()).await.unwrap();
}

const DENSE: &str = "bert.encoder.layer.1.output.dense.weight";

#[tokio::test]
async fn missing_misshapen_unused_and_infinite_tensors_are_refused() {
    type Change = Box<dyn FnOnce(&mut HashMap<String, Tensor>)>;
    let put = |name: &'static str, tensor: Tensor| -> Change { Box::new(move |t| drop(t.insert(name.into(), tensor))) };
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, tch::Device::Cpu));
    let cases: Vec<(Change, &str)> = vec![
        (
            Box::new(|t| drop(t.remove(DENSE))),
            "encoder.layer.1.output.dense.weight is missing: expected the shape [24, 40]",
        ),
        (put(DENSE, ones(&[40, 24])), "encoder.layer.1.output.dense.weight: expected the shape [24, 40], got [40, 24]"),
        (
            put("bert.encoder.layer.2.output.dense.bias", ones(&[24])),
            "encoder.layer.2.output.dense.bias of the shape [24] belongs to no layer that config.json describes",
        ),
        (
            put(DENSE, ones(&[24, 40]) / 0.0),
            "encoder.layer.1.output.dense.weight: expected finite numbers, got NaN or infinity",
        ),
        (
            put(DENSE, ones(&[24, 40]).to_kind(Kind::Int64)),
            "encoder.layer.1.output.dense.weight: expected float32, float16 or bfloat16, got Int64",
        ),
        (
            put("encoder.layer.1.output.dense.weight", ones(&[24, 40])),
            "encoder.layer.1.output.dense.weight exists twice",
        ),
    ];
    for (change, expected) in cases {
        let folder = copy("bert").await;
        change_weights(&folder, change).await;
        let failure = refused(&folder).await;
        assert!(failure.message.contains(expected), "{failure}");
    }
}

#[tokio::test]
async fn old_names_buffers_heads_and_bfloat16_are_accepted() {
    let folder = copy("bert").await;
    let text = ["a red mug"];
    let before = open(&folder).await.encode(&text).unwrap().remove(0);
    change_weights(&folder, |tensors| {
        let weight = tensors.remove("bert.embeddings.LayerNorm.weight").unwrap();
        tensors.insert("bert.embeddings.LayerNorm.gamma".into(), weight);
        tensors.insert("bert.embeddings.position_ids".into(), Tensor::arange(40, (Kind::Int64, tch::Device::Cpu)));
        tensors.insert("bert.pooler.dense.bias".into(), Tensor::from_slice(&[0f32; 24]));
    })
    .await;
    assert_eq!(open(&folder).await.encode(&text).unwrap().remove(0), before);
    change_weights(&folder, |tensors| {
        for name in tensors.keys().cloned().collect::<Vec<_>>() {
            let half = tensors[&name].to_kind(Kind::BFloat16);
            tensors.insert(name, half);
        }
    })
    .await;
    let rounded = open(&folder).await.encode(&text).unwrap().remove(0);
    let difference = rounded.iter().zip(&before).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(difference > 0.0 && difference < 0.2, "{difference}");
}

#[tokio::test]
async fn a_tensor_in_two_shards_is_refused() {
    let folder = copy("sharded").await;
    folder.write("more.safetensors", folder.read("model-00001-of-00003.safetensors").await.unwrap()).await.unwrap();
    change_json(&folder, INDEX, |index| index["weight_map"]["more"] = json!("more.safetensors")).await;
    let failure = refused(&folder).await;
    assert!(failure.message.contains("more.safetensors: ") && failure.message.ends_with("is also in another file"));
}

#[tokio::test]
async fn an_older_folder_has_its_network_in_a_subfolder() {
    let folder = copy("minilm").await;
    let before = open(&folder).await.encode(&["a red mug"]).unwrap();
    for name in ["config.json", "tokenizer.json", "sentence_bert_config.json", SINGLE_FILE] {
        folder.write(&format!("0_Transformer/{name}"), folder.read(name).await.unwrap()).await.unwrap();
        folder.delete(vec![folder.path(name)]).await.unwrap();
    }
    change_json(&folder, "modules.json", |m| m[0]["path"] = json!("0_Transformer")).await;
    assert_eq!(open(&folder).await.encode(&["a red mug"]).unwrap(), before);
}

#[tokio::test]
async fn files_that_are_missing_or_damaged_are_refused_by_name() {
    for (fixture, name, expected) in [
        ("bert", "config.json", "config.json: not found"),
        ("bert", "tokenizer.json", "tokenizer.json: not found"),
        ("bert", SINGLE_FILE, "expected model.safetensors or model.safetensors.index.json, found neither"),
        ("sharded", "model-00002-of-00003.safetensors", "model-00002-of-00003.safetensors: not found"),
        ("minilm", "1_Pooling/config.json", "1_Pooling/config.json: not found"),
    ] {
        let folder = copy(fixture).await;
        folder.delete(vec![folder.path(name)]).await.unwrap();
        let failure = refused(&folder).await;
        assert!(failure.message.contains(expected), "{failure}");
    }
    for name in ["config.json", "tokenizer.json", SINGLE_FILE, INDEX] {
        let folder = copy(if name == INDEX { "sharded" } else { "bert" }).await;
        let bytes = folder.read(name).await.unwrap();
        for damaged in [bytes.slice(..bytes.len() / 2), bytes::Bytes::new(), bytes::Bytes::from_static(b"\0\xffnone")] {
            folder.write(name, damaged).await.unwrap();
            let failure = refused(&folder).await;
            assert!(failure.message.contains(name), "{name}: {failure}");
        }
    }
}

#[tokio::test]
async fn weights_that_overflow_are_refused_when_encoding() {
    let folder = copy("minilm").await;
    let steep = Tensor::from_slice(&[3e38f32; 24]);
    change_weights(&folder, |t| drop(t.insert("embeddings.LayerNorm.weight".into(), steep))).await;
    let failure = open(&folder).await.encode(&["a mug"]).unwrap_err();
    assert_eq!(failure.kind.exit_code(), 6);
    assert!(failure.message.contains("expected finite vectors, got NaN or infinity"), "{failure}");
}

#[tokio::test]
async fn a_tokenizer_that_does_not_fit_its_weights_is_refused() {
    let folder = copy("distilbert").await;
    change_json(&folder, "tokenizer.json", |t| t["model"]["vocab"]["unheard"] = json!(250)).await;
    let failure = refused(&folder).await;
    assert!(failure.message.contains("expected ids below 250 (vocab_size of config.json), got 250"), "{failure}");
    let folder = copy("bert").await;
    // This special token is only in the post-processor.
    change_json(&folder, "tokenizer.json", |t| t["post_processor"]["sep"] = json!(["[SEP]", 254])).await;
    let failure = refused(&folder).await;
    assert!(failure.message.contains("got 254"), "{failure}");
    let settings = EncoderSettings { max_length: Some(2), ..Default::default() };
    let failure = TextEncoder::open(&copy("bert").await, settings).await.unwrap_err();
    assert!(failure.message.contains("length of 2 tokens leaves none for text: 2 are special"), "{failure}");
}

#[tokio::test]
async fn modules_of_another_width_or_kind_are_refused() {
    let folder = copy("minilm").await;
    change_json(&folder, "1_Pooling/config.json", |c| c["word_embedding_dimension"] = json!(384)).await;
    assert!(refused(&folder).await.message.contains("expected a pooling of width 24, got 384"));
    let folder = copy("minilm").await;
    change_json(&folder, "modules.json", |m| m[2]["type"] = json!("sentence_transformers.models.Dense")).await;
    assert!(refused(&folder).await.message.contains("modules.json: module 2: expected Transformer"));
}

#[tokio::test]
async fn the_hash_covers_everything_that_a_vector_depends_on() {
    let folder = copy("minilm").await;
    let before = open(&folder).await.hash().to_string();
    assert_eq!(open(&copy("minilm").await).await.hash(), before, "the hash depends on neither place nor time");
    let shorter = EncoderSettings { max_length: Some(19), ..Default::default() };
    let mut hashes = vec![before, TextEncoder::open(&folder, shorter).await.unwrap().hash().to_string()];
    for (name, key, value) in [
        ("config.json", "hidden_act", json!("relu")),
        ("tokenizer.json", "normalizer", Value::Null),
        ("1_Pooling/config.json", "pooling_mode_cls_token", json!(true)),
    ] {
        let folder = copy("minilm").await;
        change_json(&folder, name, |c| c[key] = value).await;
        hashes.push(open(&folder).await.hash().to_string());
    }
    let folder = copy("minilm").await;
    change_weights(&folder, |t| drop(t.insert("embeddings.LayerNorm.bias".into(), Tensor::from_slice(&[1f32; 24]))))
        .await;
    hashes.push(open(&folder).await.hash().to_string());
    hashes.sort();
    hashes.dedup();
    assert_eq!(hashes.len(), 6);
}

#[tokio::test]
async fn empty_texts_have_a_vector() {
    for (fixture, tokens) in [("bert", 2), ("roberta", 2), ("distilbert", 2), ("gpt2", 0)] {
        let encoder = open(&copy(fixture).await).await;
        let vectors = encoder.encode(&["a mug", ""]).unwrap();
        assert!(vectors[0].iter().any(|v| *v != 0.0), "{fixture}");
        assert_eq!(encoder.token_ids(&[""]).unwrap()[0].len(), tokens, "{fixture}");
        assert_eq!(vectors[1].iter().all(|v| *v == 0.0), tokens == 0, "{fixture}");
        assert!(encoder.encode(&[]).unwrap().is_empty());
    }
}

#[tokio::test]
async fn huge_and_binary_texts_do_not_change_their_neighbours() {
    let controls: String = (0..32u8).map(char::from).chain(['\u{7f}', '\u{85}', '\u{fffe}', '\u{10ffff}']).collect();
    let binary = String::from_utf8_lossy(&(0..=255u8).cycle().take(20_000).collect::<Vec<_>>()).into_owned();
    let megabytes = 10_000_000;
    let texts = [
        "a red mug".to_string(),
        "\0".repeat(megabytes),
        " ".repeat(megabytes),
        "x".repeat(megabytes),
        "word ".repeat(megabytes / 5),
        "e\u{301}".repeat(megabytes / 3),
        "🙂\u{200d}".repeat(megabytes / 7),
        controls,
        binary,
    ];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    for fixture in ["bert", "roberta", "distilbert", "gpt2"] {
        let encoder = open(&copy(fixture).await).await;
        let alone = encoder.encode(&texts[..1]).unwrap().remove(0);
        let started = std::time::Instant::now();
        let vectors = encoder.encode(&texts).unwrap();
        println!("{fixture}: encoded 60 MB of such texts in {:?}", started.elapsed());
        assert!(vectors.iter().flatten().all(|v| v.is_finite()), "{fixture}");
        assert!(vectors[0].iter().zip(&alone).all(|(a, b)| (a - b).abs() < 1e-5), "{fixture}");
    }
}
