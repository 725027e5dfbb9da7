//! Image encoders, the classifiers built on them, and pooling of video frames.
//!
//! In: encoded pictures (JPEG, PNG, WebP), or the vectors of a video's frames. Out: one float32 vector per picture or
//! video, label probabilities, or an error for each picture that cannot be decoded.
//!
//! `score`, `training::image` and `model::fusion` call it. Nothing here reads a lake.

mod bundle;
mod cnn;
mod container;
mod decode;
mod decoding_threads;
mod encoder;
mod encoder_card;
#[cfg(test)]
mod fixtures;
mod folder;
mod frame_pooling;
mod layers;
mod network;
mod picture_column;
mod picture_error;
mod preprocess;
mod resnet;

pub(crate) use bundle::{IMAGE_CARD, IMAGE_FORMAT, ImageModel, ImageModelCard, ImageModelWeights};
pub use cnn::CnnShape;
pub(crate) use decode::{PictureLimits, decode};
pub(crate) use decoding_threads::map_in_parallel;
pub use encoder::ImageEncoder;
pub(crate) use encoder::PictureVectors;
pub use encoder_card::{Architecture, ImageEncoderCard};
pub(crate) use folder::ImageFolder;
pub(crate) use frame_pooling::{FramePooling, Frames};
pub use network::ImageNetwork;
pub(crate) use picture_column::{is_picture_type, read_pictures};
pub(crate) use picture_error::PictureError;
pub use preprocess::Preprocess;
