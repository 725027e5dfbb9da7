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
pub mod batching;
mod block;
pub mod bundle;
pub mod classifier;
pub mod encoder;
pub mod folder;
mod layers;
pub mod low_rank;
pub mod network;
mod pooling;
mod prefix;
mod sentence_transformers;
pub mod shape;
pub mod tensor_names;
pub mod text_column;
pub mod tokenizer;
mod tuning;
mod weight_loader;

#[cfg(test)]
mod parity_tests;
#[cfg(test)]
mod refusal_tests;
