//! Pretrained text and image encoders that sessions, nights and trainings share.
//!
//! In: a folder of weights. Out: one vector per text or image. SQL functions, the refresh of contents and training call them.

mod image_encoder;
mod refused_images;
mod text_encoder;

pub(crate) use image_encoder::SharedImageEncoder;
pub(crate) use refused_images::RefusedImages;
pub(crate) use text_encoder::SharedTextEncoder;
