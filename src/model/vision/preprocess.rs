//! Preprocesses pixels like torchvision's preset of its ImageNet weights: resizes the shorter side (bilinear,
//! antialiased), crops the centre, and normalises each channel to mean 0 and deviation 1.

use image::RgbImage;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::failure::{Failure, Result};

/// Larger sizes are a mistake: a batch would not fit in memory.
const SIDE_MAX: i64 = 1024;

/// Sizes in pixels, statistics in levels of 0 to 1.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Preprocess {
    /// The shorter side after resizing.
    pub resize: i64,
    /// The side of the square that the network takes.
    pub crop: i64,
    pub mean: [f32; 3],
    pub std: [f32; 3],
}

impl Default for Preprocess {
    fn default() -> Self {
        Self { resize: 256, crop: 224, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] }
    }
}

impl Preprocess {
    /// Refuses impossible settings.
    pub(crate) fn check(&self) -> Result<()> {
        let resize = self.resize;
        let crop = self.crop;
        if !(1 <= crop && crop <= resize && resize <= SIDE_MAX) {
            return Err(Failure::model(format!("expected 1 <= crop <= resize <= {SIDE_MAX}, got {crop} and {resize}")));
        }
        match self.mean.iter().all(|v| v.is_finite()) && self.std.iter().all(|v| v.is_finite() && *v > 0.0) {
            true => Ok(()),
            false => Err(Failure::model(format!(
                "expected finite means and positive deviations, got {:?} and {:?}",
                self.mean, self.std
            ))),
        }
    }

    /// Returns the centre of a resized picture: uint8 [3, crop, crop].
    pub(crate) fn centre_crop(&self, picture: &RgbImage) -> Result<Tensor> {
        let square = self.resized_square(picture)?;
        let margin = self.margin();
        Ok(square.f_narrow(1, margin, self.crop)?.f_narrow(2, margin, self.crop)?.f_contiguous()?)
    }

    /// The distance of the centre crop from the edges of a resized square.
    pub(crate) fn margin(&self) -> i64 {
        margin(self.resize - self.crop)
    }

    /// Returns the centre with its surroundings: uint8 [3, resize, resize]. Training moves its crop within that.
    pub(crate) fn resized_square(&self, picture: &RgbImage) -> Result<Tensor> {
        let height = i64::from(picture.height());
        let width = i64::from(picture.width());
        let rows_first = Tensor::f_from_data_size(picture.as_raw(), &[1, height, width, 3], Kind::Uint8)?;
        let pixels = rows_first.f_permute([0, 3, 1, 2])?;
        let (tall, wide) = self.resized_size(height, width);
        // On integer levels, as in Pillow: the result is rounded to levels.
        let resized = pixels.f_internal_upsample_bilinear2d_aa([tall, wide], false, None, None)?;
        // Cut relative to the centre crop: two rounded margins may differ by a pixel from one.
        let start = |side: i64| margin(side - self.crop) - self.margin();
        let square = resized.f_narrow(2, start(tall), self.resize)?.f_narrow(3, start(wide), self.resize)?;
        Ok(square.f_squeeze_dim(0)?)
    }

    /// Returns height and width after resizing; the longer side is rounded down to whole pixels.
    fn resized_size(&self, height: i64, width: i64) -> (i64, i64) {
        let longer = |long: i64, short: i64| self.resize * long / short;
        match height <= width {
            true => (self.resize, longer(width, height)),
            false => (longer(height, width), self.resize),
        }
    }

    /// Maps uint8 [n, 3, h, w] to float32 of the same shape, on the input's device.
    pub(crate) fn normalise(&self, levels: &Tensor) -> Result<Tensor> {
        let by_channel = |v: &[f32; 3]| Tensor::f_from_slice(v)?.f_view([1, 3, 1, 1])?.f_to_device(levels.device());
        let shares = levels.f_to_kind(Kind::Float)?.f_div_scalar(255.0)?;
        Ok(shares.f_sub(&by_channel(&self.mean)?)?.f_div(&by_channel(&self.std)?)?)
    }
}

/// Returns half of the surplus, rounding halves to even as Python's `round` does.
fn margin(surplus: i64) -> i64 {
    let half = surplus / 2;
    half + (surplus % 2) * (half % 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vision::decode::{PictureLimits, decode};
    use crate::model::vision::fixtures::{expected, largest_difference, picture};

    fn decoded(name: &str) -> RgbImage {
        decode(&picture(name), &PictureLimits::default()).unwrap()
    }

    #[test]
    fn crops_agree_with_pillow_and_torchvision() {
        let small = Preprocess { resize: 25, crop: 20, ..Default::default() };
        let mut seen = 0;
        for (key, expected) in expected("pictures.safetensors") {
            let Some(name) = key.strip_suffix(".small") else { continue };
            let got = small.centre_crop(&decoded(name)).unwrap();
            let largest = largest_difference(&got, &expected);
            println!("{name}: resized pixels differ by {largest} levels");
            assert!(largest <= if name.ends_with(".jpg") { 2.0 } else { 1.0 }, "{name}: {largest} levels");
            seen += 1;
        }
        assert_eq!(seen, 22);
    }

    #[test]
    fn the_defaults_agree_with_the_preset_of_torchvision() {
        let preprocess = Preprocess::default();
        let centre = preprocess.centre_crop(&decoded("photo.jpg")).unwrap();
        assert_eq!((centre.size(), centre.kind()), (vec![3, 224, 224], Kind::Uint8));
        let x = preprocess.normalise(&centre.unsqueeze(0)).unwrap().squeeze_dim(0);
        let sample = x.slice(1, 3, None, 7).slice(2, 5, None, 7);
        let difference = largest_difference(&sample, &expected("pictures.safetensors")["photo.jpg.imagenet"]);
        println!("photo.jpg: normalised values differ by {difference:.4}");
        // Three levels, in units of the deviation.
        assert!(difference < 3.1 / 255.0 / 0.224, "{difference}");
    }

    #[test]
    fn levels_are_normalised_by_channel() {
        let levels = Tensor::from_slice(&[0u8, 255, 51]).view([1, 3, 1, 1]);
        let x = Preprocess { mean: [0.5, 0.5, 0.2], std: [0.5, 0.25, 1.0], ..Default::default() }.normalise(&levels);
        assert!(largest_difference(&x.unwrap().view([3]), &Tensor::from_slice(&[-1f32, 2.0, 0.0])) < 1e-6);
    }

    #[test]
    fn every_square_is_within_its_picture_around_the_centre() {
        for (resize, crop) in [(25, 20), (24, 20), (24, 19), (20, 20), (25, 24)] {
            let preprocess = Preprocess { resize, crop, ..Default::default() };
            for longer in resize..resize + 40 {
                let start = margin(longer - crop) - preprocess.margin();
                assert!(0 <= start && start + resize <= longer, "{resize} {crop} {longer}: {start}");
            }
        }
        let preprocess = Preprocess { resize: 25, crop: 20, ..Default::default() };
        let square = preprocess.resized_square(&decoded("photo.jpg")).unwrap();
        assert_eq!(square.size(), [3, 25, 25]);
    }

    #[test]
    fn margins_round_as_in_python() {
        assert_eq!([0, 1, 2, 3, 4, 5, 6, 7].map(margin), [0, 0, 1, 2, 2, 2, 3, 4]);
    }
}
