//! Pretrained text encoders and the classifiers built on them.
//!
//! In: texts and a Hugging Face folder (`config.json`, `tokenizer.json`, safetensors weights, optionally the files of
//! sentence-transformers), local or on S3. Out: one vector per text, hidden states, or label probabilities.
//!
//! `score` calls [`encoder::TextEncoder`] and [`bundle::TextModel`]; `training::text` builds on [`folder::TextFolder`],
//! [`classifier::TextClassifier`] and [`tuning`]. Nothing here knows users, items or lakes.

mod activation;
mod adapter;
mod attention;
pub(crate) mod batching;
mod block;
pub(crate) mod bundle;
pub(crate) mod classifier;
pub(crate) mod encoder;
pub(crate) mod folder;
mod layers;
pub(crate) mod low_rank;
pub(crate) mod network;
mod pooling;
mod prefix;
mod sentence_transformers;
pub(crate) mod shape;
pub(crate) mod tensor_names;
pub(crate) mod text_column;
pub(crate) mod tokenizer;
mod tuning;
mod weight_loader;

#[cfg(test)]
mod parity_tests;
#[cfg(test)]
mod refusal_tests;
