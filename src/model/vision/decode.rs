//! Decodes the bytes of a picture into upright RGB pixels. One bad picture must affect neither the process nor other
//! pictures, so sizes are checked before pixels are allocated and a decoder's panic becomes an error.
//!
//! Conversions: grey is repeated in all three channels; palettes are looked up; 16 bits are rounded to 8; CMYK is
//! multiplied out without a colour profile; transparent pixels are composited over white, as a shop's page shows them
//! (the hidden colours are often black or noise). EXIF orientation is applied. Only the first frame of an animation is
//! decoded. Colour profiles are ignored, as in torchvision.

use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, Rgb, RgbImage};
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use super::container::check_complete;
use super::picture_error::PictureError;

/// Pictures with more bytes of pixels than this are decoded one at a time, however many threads decode.
const LARGE_BYTES: u64 = 8 << 20;

/// Limits on the size of a picture. Decoding the worst one takes less than three times `decoder_bytes_max`: its decoded
/// pixels, their 8-bit copy and the decoder's buffers. Only one picture above [`LARGE_BYTES`] is decoded at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PictureLimits {
    pub(crate) encoded_bytes_max: usize,
    pub(crate) side_pixels_max: u32,
    pub(crate) pixels_max: u64,
    /// Limits the decoded pixels (16-bit RGBA takes 8 bytes per pixel), and the allocations of decoders that count
    /// them.
    pub(crate) decoder_bytes_max: u64,
    /// The longer side divided by the shorter one: enlarging the shorter side enlarges the longer one too.
    pub(crate) aspect_max: u32,
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
    fn check(&self, width: u32, height: u32) -> Result<(), PictureError> {
        let shorter = width.min(height);
        let longer = width.max(height);
        if shorter == 0 {
            return Err(PictureError::Empty);
        }
        if longer > self.side_pixels_max || u64::from(width) * u64::from(height) > self.pixels_max {
            return Err(PictureError::Size {
                side_max: self.side_pixels_max,
                pixels_max: self.pixels_max,
                width,
                height,
            });
        }
        match u64::from(longer) > u64::from(shorter) * u64::from(self.aspect_max) {
            true => Err(PictureError::Aspect { max: self.aspect_max, width, height }),
            false => Ok(()),
        }
    }
}

/// Decodes one picture into pixels of 8 bits per channel, rows from the top.
pub(crate) fn decode(bytes: &[u8], limits: &PictureLimits) -> Result<RgbImage, PictureError> {
    let format = guess_format(bytes)?;
    if bytes.len() > limits.encoded_bytes_max {
        return Err(PictureError::Bytes { max: limits.encoded_bytes_max, got: bytes.len() });
    }
    check_complete(bytes, format)?;
    // Catching a decoder's panic is safe: nothing that it held outlives the call.
    let decoded = catch_unwind(AssertUnwindSafe(|| decode_pixels(bytes, format, limits)));
    decoded.unwrap_or_else(|_| Err(PictureError::Damaged("the decoder panicked".into())))
}

fn guess_format(bytes: &[u8]) -> Result<ImageFormat, PictureError> {
    if bytes.is_empty() {
        return Err(PictureError::Empty);
    }
    match image::guess_format(bytes) {
        Ok(format @ (ImageFormat::Jpeg | ImageFormat::Png | ImageFormat::WebP)) => Ok(format),
        Ok(other) => Err(PictureError::Format(format!("{other:?}").to_uppercase())),
        Err(_) => Err(PictureError::Format(format!("bytes that start with {:02x?}", &bytes[..bytes.len().min(4)]))),
    }
}

fn decode_pixels(bytes: &[u8], format: ImageFormat, limits: &PictureLimits) -> Result<RgbImage, PictureError> {
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut allowed = Limits::no_limits();
    allowed.max_alloc = Some(limits.decoder_bytes_max);
    reader.limits(allowed);
    let mut decoder = reader.into_decoder().map_err(damaged)?;
    let (width, height) = decoder.dimensions();
    limits.check(width, height)?;
    // The JPEG decoder ignores the limit on bytes.
    if decoder.total_bytes() > limits.decoder_bytes_max {
        return Err(PictureError::Pixels { max: limits.decoder_bytes_max, got: decoder.total_bytes() });
    }
    static LARGE: Mutex<()> = Mutex::new(());
    let large = decoder.total_bytes() > LARGE_BYTES;
    let _one_at_a_time = large.then(|| LARGE.lock().unwrap_or_else(PoisonError::into_inner));
    // Unreadable EXIF data do not make the picture unreadable.
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let decoded = DynamicImage::from_decoder(decoder).map_err(damaged)?;
    let mut upright = DynamicImage::ImageRgb8(composite_over_white(decoded));
    upright.apply_orientation(orientation);
    Ok(upright.into_rgb8())
}

fn damaged(error: image::ImageError) -> PictureError {
    match &error {
        image::ImageError::IoError(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => PictureError::Truncated,
        _ => PictureError::Damaged(error.to_string().lines().next().unwrap_or_default().to_string()),
    }
}

fn composite_over_white(decoded: DynamicImage) -> RgbImage {
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
    use crate::model::vision::fixtures::{expected, largest_difference, picture};
    use tch::{Kind, Tensor};

    fn refusal(bytes: &[u8]) -> PictureError {
        decode(bytes, &PictureLimits::default()).unwrap_err()
    }

    /// Makes a PNG of chunks, adding their checksums.
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

    fn compressed_zeros(bytes: usize) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &vec![0; bytes]).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_kind_of_picture_has_the_expected_pixels() {
        let mut seen = 0;
        for (key, expected) in expected("pictures.safetensors") {
            let Some(name) = key.strip_suffix(".pixels") else { continue };
            let got = decode(&picture(name), &PictureLimits::default()).unwrap();
            let size = [i64::from(got.height()), i64::from(got.width()), 3];
            let got = Tensor::from_data_size(got.as_raw(), &size, Kind::Uint8);
            let largest = largest_difference(&got, &expected);
            let mean = (got.to_kind(Kind::Float) - expected).abs().mean(Kind::Float).double_value(&[]);
            println!("{name}: pixels differ by at most {largest} levels, {mean:.3} on average");
            // JPEG decoders upsample chroma differently: up to six levels at an edge.
            let (largest_max, mean_max) = if name.ends_with(".jpg") { (6.0, 0.5) } else { (0.0, 0.0) };
            assert!(largest <= largest_max && mean <= mean_max, "{name}: {largest} levels, {mean} on average");
            seen += 1;
        }
        assert_eq!(seen, 21);
    }

    #[test]
    fn bytes_that_are_no_picture_are_refused_with_a_reason() {
        assert_eq!(refusal(b""), PictureError::Empty);
        assert_eq!(refusal(b"GIF89a and more"), PictureError::Format("GIF".into()));
        let text = refusal(b"<html>not found</html>").to_string();
        assert_eq!(text, "expected a JPEG, PNG or WebP picture, got bytes that start with [3c, 68, 74, 6d]");
        let long = PictureLimits { encoded_bytes_max: 100, ..Default::default() };
        let got = picture("rgb.png").len();
        assert_eq!(decode(&picture("rgb.png"), &long).unwrap_err(), PictureError::Bytes { max: 100, got });
    }

    #[test]
    fn a_picture_truncated_at_any_byte_is_refused() {
        for name in ["halved.jpg", "progressive.jpg", "rgb.png", "rgba.png", "lossless.webp", "lossy.webp"] {
            let bytes = picture(name);
            // The last chunk of a PNG is empty.
            let needed = if name.ends_with("png") { bytes.len() - 16 } else { bytes.len() };
            for end in (0..needed).step_by(7).chain([needed - 1]) {
                decode(&bytes[..end], &PictureLimits::default()).expect_err(&format!("{name} cut at {end}"));
            }
        }
    }

    #[test]
    fn no_changed_byte_makes_decoding_panic() {
        for name in ["halved.jpg", "progressive.jpg", "palette.png", "lossy.webp", "alpha.webp", "moving.webp"] {
            let bytes = picture(name);
            for at in (0..bytes.len()).step_by(11) {
                let mut changed = bytes.clone();
                changed[at] ^= 0xFF;
                // Other pixels are fine; the call must return.
                let _ = decode(&changed, &PictureLimits::default());
            }
        }
    }

    #[test]
    fn too_large_sizes_are_refused_before_decoding() {
        let idat = (b"IDAT", compressed_zeros(1000));
        let huge = refusal(&png(&[header(1_000_000, 1_000_000), idat.clone(), (b"IEND", vec![])]));
        let (side_max, pixels_max) = (16_384, 1 << 25);
        assert_eq!(huge, PictureError::Size { side_max, pixels_max, width: 1_000_000, height: 1_000_000 });
        // 36 million pixels in less than 2 MB.
        let bomb = png(&[header(6_000, 6_000), (b"IDAT", compressed_zeros(6_000 * 18_001)), (b"IEND", vec![])]);
        assert!(bomb.len() < 2_000_000, "{}", bomb.len());
        assert_eq!(refusal(&bomb), PictureError::Size { side_max, pixels_max, width: 6_000, height: 6_000 });
        let strip = refusal(&png(&[header(1, 10_000), idat, (b"IEND", vec![])]));
        assert_eq!(strip, PictureError::Aspect { max: 20, width: 1, height: 10_000 });
    }

    #[test]
    fn a_decompression_bomb_in_metadata_is_ignored() {
        let small = PictureLimits { decoder_bytes_max: 8 << 20, ..Default::default() };
        for kind in [b"zTXt", b"iCCP"] {
            let bomb = [&b"a\0\0"[..], &compressed_zeros(64 << 20)].concat();
            let bytes = png(&[header(2, 2), (kind, bomb), (b"IDAT", compressed_zeros(2 * 7)), (b"IEND", vec![])]);
            assert_eq!(decode(&bytes, &small).unwrap().as_raw(), &[0; 12]);
        }
    }

    #[test]
    fn the_decoders_allocations_are_limited() {
        let small = PictureLimits { decoder_bytes_max: 1000, ..Default::default() };
        for name in ["photo.jpg", "rgb.png", "lossless.webp"] {
            let refused = decode(&picture(name), &small).unwrap_err();
            assert!(matches!(refused, PictureError::Pixels { .. } | PictureError::Damaged(_)), "{name}: {refused}");
        }
    }
}
