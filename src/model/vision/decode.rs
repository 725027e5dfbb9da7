//! Bytes of a picture into upright RGB pixels, or the reason why not. One bad picture must cost neither the process nor
//! its neighbours, so sizes are checked before pixels are allocated and a decoder's panic becomes a reason.
//!
//! What other kinds of pixels become: grey is repeated in all three channels; palettes are looked up; 16 bits are
//! rounded to 8; CMYK is multiplied out without a colour profile; what is transparent lies over white, as a shop's page
//! shows it (what hides below transparency is often black or noise). EXIF orientation is applied. Of animations the
//! first frame counts. Colour profiles are ignored, as torchvision ignores them.

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use super::container::check_whole;

/// Why a picture has no vector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the picture is empty")]
    Empty,
    #[error("expected a JPEG, PNG or WebP picture, got {0}")]
    Format(String),
    #[error("the picture is cut off: its end is missing")]
    Truncated,
    #[error("expected at most {max} bytes of a picture, got {got}")]
    Bytes { max: usize, got: usize },
    #[error("expected at most {side_max} pixels a side and {pixels_max} in all, got {width} x {height}")]
    Size { side_max: u32, pixels_max: u64, width: u32, height: u32 },
    #[error("expected at most {max} bytes of pixels, got {got}")]
    Pixels { max: u64, got: u64 },
    #[error("expected the longer side to be at most {max} times the shorter, got {width} x {height}")]
    Aspect { max: u32, width: u32, height: u32 },
    #[error("the picture is damaged: {0}")]
    Damaged(String),
    #[error("the network gives numbers that are not finite")]
    NotFinite,
}

/// Bytes of pixels above which pictures are decoded one at a time, whatever the number of threads that decode.
const LARGE_BYTES: u64 = 8 << 20;

/// What a picture may cost: the worst one holds its pixels as decoded, their 8-bit copy and what its decoder works with, less
/// than three times `decoder_bytes_max`. Only one above [`LARGE_BYTES`] is decoded at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PictureLimits {
    pub encoded_bytes_max: usize,
    pub side_pixels_max: u32,
    pub pixels_max: u64,
    /// Pixels as decoded (16-bit RGBA takes 8 bytes a pixel), or what a decoder that counts may allocate.
    pub decoder_bytes_max: u64,
    /// Longer over shorter side: resizing the shorter side up makes the longer one grow with it.
    pub aspect_max: u32,
}

impl Default for PictureLimits {
    fn default() -> Self {
        Self {
            encoded_bytes_max: 64 << 20,
            side_pixels_max: 16_384,
            pixels_max: 1 << 25,
            decoder_bytes_max: 288 << 20,
            aspect_max: 20,
        }
    }
}

impl PictureLimits {
    fn check(&self, width: u32, height: u32) -> Result<(), Refused> {
        let (shorter, longer) = (width.min(height), width.max(height));
        if shorter == 0 {
            return Err(Refused::Empty);
        }
        if longer > self.side_pixels_max || u64::from(width) * u64::from(height) > self.pixels_max {
            let (side_max, pixels_max) = (self.side_pixels_max, self.pixels_max);
            return Err(Refused::Size { side_max, pixels_max, width, height });
        }
        match u64::from(longer) > u64::from(shorter) * u64::from(self.aspect_max) {
            true => Err(Refused::Aspect { max: self.aspect_max, width, height }),
            false => Ok(()),
        }
    }
}

/// The pixels of one picture, 8 bits a channel, rows from the top.
pub fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<RgbImage, Refused> {
    let format = format_of(bytes)?;
    if bytes.len() > limits.encoded_bytes_max {
        return Err(Refused::Bytes { max: limits.encoded_bytes_max, got: bytes.len() });
    }
    check_whole(bytes, format)?;
    // A decoder that panics on bytes nobody has thought of is a bug of its own; nothing it held outlives the call.
    let decoded = catch_unwind(AssertUnwindSafe(|| pixels(bytes, format, limits)));
    decoded.unwrap_or_else(|_| Err(Refused::Damaged("the decoder gave up".into())))
}

fn format_of(bytes: &[u8]) -> Result<ImageFormat, Refused> {
    if bytes.is_empty() {
        return Err(Refused::Empty);
    }
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => Ok(format),
        Ok(other) => Err(Refused::Format(format!("{other:?}").to_uppercase())),
        Err(_) => Err(Refused::Format(format!("bytes that start with {:02x?}", &bytes[..bytes.len().min(4)]))),
    }
}

fn pixels(bytes: &[u8], format: ImageFormat, limits: &PictureLimits) -> Result<RgbImage, Refused> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut allowed = Limits::no_limits();
    allowed.max_alloc = Some(limits.decoder_bytes_max);
    reader.limits(allowed);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    limits.check(width, height)?;
    // The JPEG decoder looks at no limit of bytes.
    if decoder.total_bytes() > limits.decoder_bytes_max {
        return Err(Refused::Pixels { max: limits.decoder_bytes_max, got: decoder.total_bytes() });
    }
    static LARGE: Mutex<()> = Mutex::new(());
    let large = decoder.total_bytes() > LARGE_BYTES;
    let _one_at_a_time = large.then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    // Unreadable EXIF is no reason to lose a picture.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    let mut upright = DynamicImage::ImageRgb8(over_white(decoded));
    upright.apply_orientation(orientation);
    Ok(upright.into_rgb8())
}

fn damaged(error: image::ImageError) -> Refused {
    match &error {
        image::ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => Refused::Truncated,
        _ => Refused::Damaged(error.to_string().lines().next().unwrap_or_default().to_string()),
    }
}

fn over_white(decoded: DynamicImage) -> RgbImage {
    if !decoded.color().has_alpha() {
        return decoded.into_rgb8();
    }
    let rgba = decoded.into_rgba8();
    let mut rgb = RgbImage::new(rgba.width(), rgba.height());
    for (to, from) in rgb.pixels_mut().zip(rgba.pixels()) {
        let [r, g, b, alpha] = from.0.map(u32::from);
        *to = Rgb([r, g, b].map(|c| ((c * alpha + 255 * (255 - alpha) + 127) / 255) as u8));
    }
    rgb
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vision::formula::{expected, largest_difference, picture};
    use tch::{Kind, Tensor};

    fn refusal(bytes: &[u8]) -> Refused {
        decode(bytes, &PictureLimits::default()).unwrap_err()
    }

    /// A PNG's chunks with their checksums.
    fn png(chunks: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, data) in chunks {
            let mut checksum = flate2::Crc::new();
            checksum.update(*kind);
            checksum.update(data);
            let (length, sum) = ((data.len() as u32).to_be_bytes(), checksum.sum().to_be_bytes());
            bytes.extend([&length[..], *kind, data, &sum].concat());
        }
        bytes
    }

    fn header(width: u32, height: u32) -> (&'static [u8; 4], Vec<u8>) {
        (b"IHDR", [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat())
    }

    fn packed(bytes: usize) -> Vec<u8> {
        let mut packer = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packer, &vec![0; bytes]).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn every_kind_of_picture_has_the_stated_pixels() {
        let mut seen = 0;
        for (key, expected) in expected("pictures.safetensors") {
            let Some(name) = key.strip_suffix(".pixels") else { continue };
            let got = decode(&picture(name), &PictureLimits::default()).unwrap();
            let size = [i64::from(got.height()), i64::from(got.width()), 3];
            let got = Tensor::from_data_size(got.as_raw(), &size, Kind::Uint8);
            let largest = largest_difference(&got, &expected);
            let mean = (got.to_kind(Kind::Float) - expected).abs().mean(Kind::Float).double_value(&[]);
            println!("{name}: pixels differ by {largest} levels at most, {mean:.3} in the mean");
            // JPEG decoders are free in how they enlarge halved colours: up to six levels at an edge.
            let (most, in_the_mean) = if name.ends_with(".jpg") { (6.0, 0.5) } else { (0.0, 0.0) };
            assert!(largest <= most && mean <= in_the_mean, "{name}: {largest} levels, {mean} in the mean");
            seen += 1;
        }
        assert_eq!(seen, 21);
    }

    #[test]
    fn what_is_no_picture_is_refused_with_its_reason() {
        assert_eq!(refusal(b""), Refused::Empty);
        assert_eq!(refusal(b"GIF89a and more"), Refused::Format("GIF".into()));
        let text = refusal(b"<html>not found</html>").to_string();
        assert_eq!(text, "expected a JPEG, PNG or WebP picture, got bytes that start with [3c, 68, 74, 6d]");
        let long = PictureLimits { encoded_bytes_max: 100, ..Default::default() };
        let got = picture("rgb.png").len();
        assert_eq!(decode(&picture("rgb.png"), &long).unwrap_err(), Refused::Bytes { max: 100, got });
    }

    #[test]
    fn a_cut_at_any_byte_is_refused() {
        for name in ["halved.jpg", "progressive.jpg", "rgb.png", "rgba.png", "lossless.webp", "lossy.webp"] {
            let bytes = picture(name);
            // The last chunk of a PNG has nothing in it.
            let needed = if name.ends_with("png") { bytes.len() - 16 } else { bytes.len() };
            for end in (0..needed).step_by(7).chain([needed - 1]) {
                decode(&bytes[..end], &PictureLimits::default()).expect_err(&format!("{name} cut at {end}"));
            }
        }
    }

    #[test]
    fn no_change_of_a_byte_makes_the_decoder_panic() {
        for name in ["halved.jpg", "progressive.jpg", "palette.png", "lossy.webp", "alpha.webp", "moving.webp"] {
            let bytes = picture(name);
            for at in (0..bytes.len()).step_by(11) {
                let mut changed = bytes.clone();
                changed[at] ^= 0xFF;
                // Other pixels are fine; what counts is that the call comes back.
                let _ = decode(&changed, &PictureLimits::default());
            }
        }
    }

    #[test]
    fn sizes_are_refused_before_pixels_are_made() {
        let idat = (b"IDAT", packed(1000));
        let huge = refusal(&png(&[header(1_000_000, 1_000_000), idat.clone(), (b"IEND", vec![])]));
        let (side_max, pixels_max) = (16_384, 1 << 25);
        assert_eq!(huge, Refused::Size { side_max, pixels_max, width: 1_000_000, height: 1_000_000 });
        // 36 million pixels in a megabyte or less.
        let bomb = png(&[header(6_000, 6_000), (b"IDAT", packed(6_000 * 18_001)), (b"IEND", vec![])]);
        assert!(bomb.len() < 2_000_000, "{}", bomb.len());
        assert_eq!(refusal(&bomb), Refused::Size { side_max, pixels_max, width: 6_000, height: 6_000 });
        let strip = refusal(&png(&[header(1, 10_000), idat, (b"IEND", vec![])]));
        assert_eq!(strip, Refused::Aspect { max: 20, width: 1, height: 10_000 });
    }

    #[test]
    fn a_bomb_beside_the_pixels_is_left_alone() {
        let small = PictureLimits { decoder_bytes_max: 8 << 20, ..Default::default() };
        for kind in [b"zTXt", b"iCCP"] {
            let bomb = [&b"a\0\0"[..], &packed(64 << 20)].concat();
            let bytes = png(&[header(2, 2), (kind, bomb), (b"IDAT", packed(2 * 7)), (b"IEND", vec![])]);
            assert_eq!(decode(&bytes, &small).unwrap().as_raw(), &[0; 12]);
        }
    }

    #[test]
    fn what_the_decoder_would_allocate_is_bounded() {
        let small = PictureLimits { decoder_bytes_max: 1000, ..Default::default() };
        for name in ["photo.jpg", "rgb.png", "lossless.webp"] {
            let refused = decode(&picture(name), &small).unwrap_err();
            assert!(matches!(refused, Refused::Pixels { .. } | Refused::Damaged(_)), "{name}: {refused}");
        }
    }
}
