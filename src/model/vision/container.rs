//! Detects truncated pictures from their container format, before any pixel is decoded.
//!
//! The JPEG decoder fills the missing part of a truncated file with grey without an error, so a lake full of
//! half-uploaded files would give vectors of grey. PNG needs no check: its decoder refuses truncated files.

use image::ImageFormat;

use super::picture_error::PictureError;

/// The maximum number of scans of a progressive JPEG. Real encoders make about ten; a hostile file could make thousands
/// over the same pixels.
const JPEG_SCANS_MAX: usize = 100;

const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// Refuses a picture that ends before its container format says.
pub(crate) fn check_complete(bytes: &[u8], format: ImageFormat) -> Result<(), PictureError> {
    match format {
        ImageFormat::Jpeg => check_jpeg(bytes),
        ImageFormat::WebP => check_webp(bytes),
        _ => Ok(()),
    }
}

/// Walks the segments of a JPEG (ITU T.81, B.1.1) to the end marker. Bytes after it are ignored.
fn check_jpeg(bytes: &[u8]) -> Result<(), PictureError> {
    let mut at = 2;
    let mut scans = 0;
    loop {
        let marker = next_marker(bytes, &mut at)?;
        match marker {
            END_OF_IMAGE => return Ok(()),
            // TEM and restart markers have no length.
            0x01 | 0xD0..=0xD7 => continue,
            _ => {}
        }
        let length = bytes.get(at..at + 2).ok_or(PictureError::Truncated)?;
        at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
        if marker == START_OF_SCAN {
            scans += 1;
            if scans > JPEG_SCANS_MAX {
                return Err(PictureError::Damaged(format!("expected at most {JPEG_SCANS_MAX} scans in a JPEG")));
            }
            at = scan_end(bytes, at);
        }
    }
}

/// Returns the next marker from `at` on, and moves `at` past it. Any number of 0xFF may precede a marker.
fn next_marker(bytes: &[u8], at: &mut usize) -> Result<u8, PictureError> {
    // Some encoders leave stray bytes between segments, which decoders skip.
    let offset =
        bytes.get(*at..).and_then(|rest| rest.windows(2).position(|w| w[0] == 0xFF && !matches!(w[1], 0 | 0xFF)));
    let found = *at + offset.ok_or(PictureError::Truncated)?;
    *at = found + 2;
    Ok(bytes[found + 1])
}

/// Returns the end of the coded data that begin at `at`: the first marker that is neither a stuffed zero nor a restart.
fn scan_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let end = rest.windows(2).position(|w| w[0] == 0xFF && !matches!(w[1], 0 | 0xD0..=0xD7 | 0xFF));
    at + end.unwrap_or(rest.len())
}

/// Compares the number of bytes with the RIFF header, which counts those after its first eight.
fn check_webp(bytes: &[u8]) -> Result<(), PictureError> {
    let field = bytes.get(4..8).ok_or(PictureError::Truncated)?;
    let size = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
    match bytes.len() as u64 >= u64::from(size) + 8 {
        true => Ok(()),
        false => Err(PictureError::Truncated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vision::fixtures::picture;

    #[test]
    fn a_jpeg_truncated_at_any_byte_is_refused() {
        for name in ["halved.jpg", "progressive.jpg", "turned.jpg"] {
            let bytes = picture(name);
            assert_eq!(check_jpeg(&bytes), Ok(()), "{name}");
            for end in 2..bytes.len() {
                assert_eq!(check_jpeg(&bytes[..end]), Err(PictureError::Truncated), "{name} cut at {end}");
            }
        }
    }

    #[test]
    fn bytes_after_the_end_are_ignored() {
        let bytes = [picture("full.jpg"), vec![0xFF, 0xDA, 7]].concat();
        assert_eq!(check_jpeg(&bytes), Ok(()));
    }

    #[test]
    fn a_jpeg_with_too_many_scans_is_refused() {
        let scan = [0xFF, START_OF_SCAN, 0, 3, 0, 17];
        let bytes = [&[0xFF, 0xD8][..], &scan.repeat(JPEG_SCANS_MAX + 1), &[0xFF, END_OF_IMAGE]].concat();
        assert!(matches!(check_jpeg(&bytes), Err(PictureError::Damaged(_))));
    }
}
