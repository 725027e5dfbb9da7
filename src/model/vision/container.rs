//! Whether the bytes of a picture are all there, told from its container before any pixel is decoded.
//!
//! The JPEG decoder fills what a truncated file lacks with grey and calls it a picture; a lake full of half-uploaded
//! files would then give vectors of grey. PNG needs no look: its decoder refuses what is cut off.

use image::ImageFormat;

use super::decode::Refused;

/// Passes over a progressive JPEG; honest encoders make about ten, hostile ones thousands over the same pixels.
const JPEG_SCANS_MAX: usize = 100;

const END_OF_IMAGE: u8 = 0xD9;
const START_OF_SCAN: u8 = 0xDA;

/// Refuses what ends before its container says so.
pub fn check_whole(bytes: &[u8], format: ImageFormat) -> Result<(), Refused> {
    match format {
        ImageFormat::Jpeg => check_jpeg(bytes),
        ImageFormat::WebP => check_webp(bytes),
        _ => Ok(()),
    }
}

/// Walks the segments of a JPEG (ITU T.81, B.1.1) to the end marker. Bytes after it are nobody's business.
fn check_jpeg(bytes: &[u8]) -> Result<(), Refused> {
    let (mut at, mut scans) = (2, 0);
    loop {
        let marker = marker(bytes, &mut at)?;
        match marker {
            END_OF_IMAGE => return Ok(()),
            // TEM and restart markers have no length.
            0x01 | 0xD0..=0xD7 => continue,
            _ => {}
        }
        let length = bytes.get(at..at + 2).ok_or(Refused::Truncated)?;
        at += usize::from(u16::from_be_bytes([length[0], length[1]])).max(2);
        if marker == START_OF_SCAN {
            scans += 1;
            if scans > JPEG_SCANS_MAX {
                return Err(Refused::Damaged(format!("expected at most {JPEG_SCANS_MAX} scans in a JPEG")));
            }
            at = scan_end(bytes, at);
        }
    }
}

/// The marker at `at`, which moves behind it. Any number of 0xFF may stand in front of one.
fn marker(bytes: &[u8], at: &mut usize) -> Result<u8, Refused> {
    // Some encoders leave stray bytes between segments; decoders skip them, so do we.
    let found =
        bytes.get(*at..).and_then(|rest| rest.windows(2).position(|w| w[0] == 0xFF && !matches!(w[1], 0 | 0xFF)));
    let found = *at + found.ok_or(Refused::Truncated)?;
    *at = found + 2;
    Ok(bytes[found + 1])
}

/// Where the coded data that begin at `at` end: before the first marker that is neither a stuffed zero nor a restart.
fn scan_end(bytes: &[u8], at: usize) -> usize {
    let rest = bytes.get(at..).unwrap_or_default();
    let end = rest.windows(2).position(|w| w[0] == 0xFF && !matches!(w[1], 0 | 0xD0..=0xD7 | 0xFF));
    at + end.unwrap_or(rest.len())
}

/// The RIFF header names how many bytes follow its first eight.
fn check_webp(bytes: &[u8]) -> Result<(), Refused> {
    let size = bytes.get(4..8).ok_or(Refused::Truncated)?;
    let size = u32::from_le_bytes([size[0], size[1], size[2], size[3]]);
    match bytes.len() as u64 >= u64::from(size) + 8 {
        true => Ok(()),
        false => Err(Refused::Truncated),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vision::formula::picture;

    #[test]
    fn every_cut_of_a_jpeg_is_seen() {
        for name in ["halved.jpg", "progressive.jpg", "turned.jpg"] {
            let bytes = picture(name);
            assert_eq!(check_jpeg(&bytes), Ok(()), "{name}");
            for end in 2..bytes.len() {
                assert_eq!(check_jpeg(&bytes[..end]), Err(Refused::Truncated), "{name} cut at {end}");
            }
        }
    }

    #[test]
    fn bytes_after_the_end_are_left_alone() {
        let bytes = [picture("full.jpg"), vec![0xFF, 0xDA, 7]].concat();
        assert_eq!(check_jpeg(&bytes), Ok(()));
    }

    #[test]
    fn a_jpeg_of_endless_scans_is_refused() {
        let scan = [0xFF, START_OF_SCAN, 0, 3, 0, 17];
        let bytes = [&[0xFF, 0xD8][..], &scan.repeat(JPEG_SCANS_MAX + 1), &[0xFF, END_OF_IMAGE]].concat();
        assert!(matches!(check_jpeg(&bytes), Err(Refused::Damaged(_))));
    }
}
