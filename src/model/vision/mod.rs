//! Networks that look at pictures. In: encoded pictures (JPEG, PNG, WebP) or the vectors of a video's frames. Out: one
//! float32 vector a picture or video, or a reason for each picture that has none. Training and whoever fills
//! `items.image_vector` call; nothing here reads a lake. `bundle` keeps what labels pictures in the registry.

mod bundle;
mod card;
mod cnn;
mod container;
mod decode;
mod decoders;
mod encoder;
mod folder;
#[cfg(test)]
mod formula;
mod frames;
mod layers;
mod network;
mod preprocess;
mod resnet;

pub use bundle::{IMAGE_CARD, IMAGE_FORMAT, ImageModel, ImageModelCard, ImageParts};
pub use card::{Architecture, ImageCard};
pub use cnn::{Cnn, CnnShape};
pub use decode::{PictureLimits, Refused, decode};
pub use decoders::side_by_side;
pub use encoder::{ImageEncoder, Vectors};
pub use folder::ImageFolder;
pub use frames::{FramePooling, Frames};
pub use network::{ImageNetwork, load};
pub use preprocess::Preprocess;
pub use resnet::{Depth, ResNet};
