//! Compares our encoder with `transformers` and sentence-transformers on the folders of tests/fixtures/text, whose
//! make.py wrote both the folders and the expected values: token ids must be equal, hidden states and vectors within
//! 1e-4.

use serde::Deserialize;
use std::collections::HashMap;
use tch::{Kind, Tensor};

use super::encoder::{EncoderSettings, TextEncoder};
use super::folder::TextFolder;
use super::pooling::{Pooling, PoolingMode};
use super::shape::TextShape;
use super::tokenizer::{MAX_LENGTH, TextTokenizer};
use crate::config::{S3Config, networks::Precision};
use crate::lake::stores::Location;
use crate::model::weights;

const FOLDERS: [&str; 7] = ["bert", "roberta", "distilbert", "gpt2", "minilm", "sharded", "half"];

#[derive(Deserialize)]
struct Expected {
    max_length: usize,
    texts: Vec<String>,
    ids: Vec<Vec<i64>>,
    /// The first texts with a token, which the tensors are for.
    batch: Vec<String>,
}

struct Case {
    encoder: TextEncoder,
    expected: Expected,
    tensors: HashMap<String, Tensor>,
}

/// Loads the folder `name` below `parent` and its expected values.
async fn case(parent: &str, name: &str) -> Case {
    let folder = Location::open(parent, &S3Config::default()).unwrap().folder(name);
    let encoder = TextEncoder::open(&folder, EncoderSettings::default()).await.unwrap();
    let expected = serde_json::from_slice(&folder.read("expected.json").await.unwrap()).unwrap();
    let tensors = weights::tensors_from_bytes(&folder.read("expected.safetensors").await.unwrap()).unwrap();
    Case { encoder, expected, tensors }
}

async fn fixture(name: &str) -> Case {
    case(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/text"), name).await
}

fn strs(texts: &[String]) -> Vec<&str> {
    texts.iter().map(String::as_str).collect()
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    assert_eq!(a.size(), b.size());
    (a - b).abs().max().double_value(&[])
}

/// Returns the largest differences of hidden states and of vectors; fails if any ids differ.
fn compare(case: &Case) -> (f64, f64) {
    let Case { encoder, expected, tensors } = case;
    assert_eq!(encoder.max_length(), expected.max_length);
    for (text, (got, expected)) in
        expected.texts.iter().zip(encoder.token_ids(&strs(&expected.texts)).unwrap().iter().zip(&expected.ids))
    {
        assert_eq!(got, expected, "{text:?}");
    }
    let batch = encoder.states(&strs(&expected.batch)).unwrap();
    assert!(batch.is_token.to_kind(Kind::Int64).equal(&tensors["mask"]));
    assert!(tensors["hidden"].std(true).double_value(&[]) > 0.01, "constant expected states prove nothing");
    // States of padding are meaningless in both.
    let is_token = batch.is_token.unsqueeze(-1);
    let states = largest_difference(&(batch.states * &is_token), &(&tensors["hidden"] * &is_token));
    let vectors = encoder.encode(&strs(&expected.batch)).unwrap();
    (states, largest_difference(&Tensor::from_slice2(&vectors), &tensors["pooled"]))
}

#[tokio::test]
async fn every_family_agrees_with_transformers() {
    for name in FOLDERS {
        let (states, pooled) = compare(&fixture(name).await);
        println!("{name}: hidden states within {states:e}, vectors within {pooled:e}");
        assert!(states < 1e-4 && pooled < 1e-4, "{name}: {states} {pooled}");
    }
}

#[tokio::test]
async fn the_default_length_is_512_tokens_or_all_positions() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/text/bert");
    let location = Location::open(path, &S3Config::default()).unwrap();
    let folder = TextFolder::load(&location, None).await.unwrap();
    let bytes = location.read("tokenizer.json").await.unwrap();
    for (position_rows, expected) in [(40, 40), (600, 512)] {
        let shape = TextShape { position_rows, ..folder.shape.clone() };
        assert_eq!(TextTokenizer::from_bytes(&bytes, MAX_LENGTH, &shape).unwrap().max_length(), expected);
    }
    assert_eq!(folder.tokenizer.max_length(), 40);
}

#[tokio::test]
async fn every_pooling_mode_agrees_with_sentence_transformers() {
    let Case { encoder, expected, tensors } = fixture("minilm").await;
    let batch = encoder.states(&strs(&expected.batch)).unwrap();
    for (name, mode) in PoolingMode::NAMES {
        let pooling = Pooling { modes: vec![mode], normalise: false };
        let got = pooling.pool(&batch.states, &batch.is_token).unwrap();
        let difference = largest_difference(&got, &tensors[&format!("pooled.{name}")]);
        assert!(difference < 1e-4, "{name}: {difference}");
    }
}

#[tokio::test]
async fn a_batch_equals_its_members_one_by_one() {
    for name in FOLDERS {
        let Case { encoder, expected, .. } = fixture(name).await;
        let together = encoder.encode(&strs(&expected.texts)).unwrap();
        for (text, batched) in expected.texts.iter().zip(&together) {
            let alone = encoder.encode(&[text]).unwrap().remove(0);
            let difference = alone.iter().zip(batched).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(difference < 1e-5, "{name}: {text:?}: {difference}");
        }
    }
}

#[tokio::test]
async fn batch_sizes_do_not_change_vectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/text/gpt2");
    let folder = Location::open(path, &S3Config::default()).unwrap();
    let expected = fixture("gpt2").await;
    let texts = strs(&expected.expected.texts);
    let whole = expected.encoder.encode(&texts).unwrap().concat();
    for batch_tokens_max in [1, 50, 137] {
        let settings = EncoderSettings { batch_tokens_max, ..Default::default() };
        let cut = TextEncoder::open(&folder, settings).await.unwrap().encode(&texts).unwrap().concat();
        let difference = whole.iter().zip(&cut).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference < 1e-5, "{batch_tokens_max}: {difference}");
    }
}

/// `lab/check_minilm.sh` fills the folder.
#[tokio::test]
#[ignore = "needs the weights of all-MiniLM-L6-v2: run lab/check_minilm.sh"]
async fn the_real_minilm_agrees_with_sentence_transformers() {
    let case = case(env!("CARGO_MANIFEST_DIR"), ".minilm").await;
    let (states, pooled) = compare(&case);
    println!("all-MiniLM-L6-v2: {} texts with the same ids", case.expected.texts.len());
    println!("all-MiniLM-L6-v2: hidden states within {states:e}, vectors within {pooled:e}");
    assert!(states < 1e-4 && pooled < 1e-4, "{states} {pooled}");
}

#[tokio::test]
async fn bfloat16_vectors_are_close_and_have_another_hash() {
    for name in FOLDERS {
        let Case { encoder, expected, .. } = fixture(name).await;
        let texts = strs(&expected.batch);
        let (hash, whole) = (encoder.hash().to_string(), encoder.encode(&texts).unwrap());
        let encoder = encoder.in_precision(Precision::Bf16);
        assert_eq!(encoder.hash(), format!("{hash}-bf16"));
        let mut worst = 1f32;
        for (a, b) in whole.iter().zip(encoder.encode(&texts).unwrap()) {
            let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(x, y)| x * y).sum::<f32>();
            worst = worst.min(dot(a, &b) / (dot(a, a) * dot(&b, &b)).sqrt());
        }
        println!("{name}: smallest cosine {worst:.5}");
        assert!((0.99..0.999_999_9).contains(&worst), "{name}: {worst}");
    }
}
