//! Pretrained text encoders. What comes in: a Hugging Face folder (`config.json`, `tokenizer.json`, safetensors weights,
//! and sentence-transformers' files where there are any), local or on S3, and texts. What goes out: hidden states, and one
//! vector a text. `training` and `score` call it, through [`encoder::TextEncoder`]; nothing here knows of users or items.

pub mod attention;
pub mod blocks;
pub mod bundle;
pub mod classifier;
pub mod column;
pub mod config;
pub mod encoder;
pub mod folder;
pub mod layers;
pub mod loader;
pub mod names;
pub mod network;
pub mod pooling;
pub mod sentence;
pub mod tokens;
pub mod tuning;

#[cfg(test)]
mod parity;
#[cfg(test)]
mod refusals;
