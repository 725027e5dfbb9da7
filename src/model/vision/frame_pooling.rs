//! Pools the vectors of a video's frames into one vector: attention of one learnt query over the frames.
//!
//! With frames f_1 … f_n of a video, a query q and a value projection V f + b:
//!
//! ```text
//! score_i  = q · f_i / √width
//! weight_i = exp(score_i) / Σ_j exp(score_j)        over the frames that are present
//! vector   = Σ_i weight_i (V f_i + b)
//! ```
//!
//! There is no key projection: one query times a matrix is again one vector, which is learnt directly. A video without
//! frames gives zeros.

use tch::{Kind, Tensor, nn};

use crate::failure::Result;

/// The frames of some videos, padded at the end to the longest.
#[derive(Debug)]
pub(crate) struct Frames {
    /// float32 [videos, frames, width].
    pub(crate) x: Tensor,
    /// bool [videos, frames]; false for padding.
    pub(crate) present: Tensor,
}

#[derive(Debug)]
pub(crate) struct FramePooling {
    /// float32 [width].
    query: Tensor,
    value: nn::Linear,
    scale: f64,
}

impl FramePooling {
    /// Creates random weights below `path`: `query` and `value.{weight, bias}`.
    pub(crate) fn new(path: &nn::Path, width: i64, outputs: i64) -> Self {
        let query = path.var("query", &[width], nn::Init::Randn { mean: 0.0, stdev: 0.02 });
        let value = nn::linear(path / "value", width, outputs, Default::default());
        Self { query, value, scale: 1.0 / (width as f64).sqrt() }
    }

    /// Returns the attention weights: float32 [videos, frames], 0 for padding, with sum 1 for a video with frames.
    pub(crate) fn weights(&self, frames: &Frames) -> Result<Tensor> {
        let absent = frames.present.f_logical_not()?;
        let scores = self.masked_frames(frames)?.f_matmul(&self.query)?.f_mul_scalar(self.scale)?;
        // Softmax over no frames would be NaN, and so would its gradient. With the lowest number, the weights are
        // uniform instead, and the mask sets them to zero.
        let masked_scores = scores.f_masked_fill(&absent, f64::from(f32::MIN))?;
        Ok(masked_scores.f_softmax(-1, Kind::Float)?.f_masked_fill(&absent, 0.0)?)
    }

    /// Returns one vector per video: float32 [videos, outputs].
    pub(crate) fn forward(&self, frames: &Frames) -> Result<Tensor> {
        let weights = self.weights(frames)?;
        let values = self.masked_frames(frames)?.f_linear(&self.value.ws, self.value.bs.as_ref())?;
        Ok(weights.f_unsqueeze(1)?.f_matmul(&values)?.f_squeeze_dim(1)?)
    }

    /// Returns the frames with zeros for padding, which may hold NaN (and zero times NaN is NaN).
    fn masked_frames(&self, frames: &Frames) -> Result<Tensor> {
        Ok(frames.x.f_masked_fill(&frames.present.f_logical_not()?.f_unsqueeze(-1)?, 0.0)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vision::fixtures::{fill, largest_difference, uniform};
    use tch::{Device, nn::OptimizerConfig};

    fn pooling(width: i64, outputs: i64) -> (nn::VarStore, FramePooling) {
        let store = nn::VarStore::new(Device::Cpu);
        let pooling = FramePooling::new(&store.root(), width, outputs);
        fill(&store);
        (store, pooling)
    }

    /// Makes videos of the given numbers of frames, of 6 numbers each.
    fn videos(lengths: &[usize]) -> Vec<Vec<Vec<f32>>> {
        let mut numbers = uniform("frames", 6 * lengths.iter().sum::<usize>()).map(|u| (4.0 * u - 2.0) as f32);
        lengths.iter().map(|&n| (0..n).map(|_| numbers.by_ref().take(6).collect()).collect()).collect()
    }

    /// Pads videos, each a list of frame vectors of 6 numbers.
    fn pad(videos: &[Vec<Vec<f32>>]) -> Frames {
        let longest = videos.iter().map(Vec::len).max().unwrap().max(1);
        let mut x = vec![0f32; videos.len() * longest * 6];
        let mut present = vec![false; videos.len() * longest];
        for (video, frames) in videos.iter().enumerate() {
            for (i, frame) in frames.iter().enumerate() {
                let at = video * longest + i;
                x[at * 6..(at + 1) * 6].copy_from_slice(frame);
                present[at] = true;
            }
        }
        let size = [videos.len() as i64, longest as i64];
        Frames {
            x: Tensor::from_slice(&x).view([size[0], size[1], 6]),
            present: Tensor::from_slice(&present).view(size),
        }
    }

    #[test]
    fn padding_does_not_change_vectors() {
        let (_store, pooling) = pooling(6, 4);
        let videos = videos(&[3, 1, 0, 5]);
        let mut together = pad(&videos);
        // Padding may hold anything.
        let absent = together.present.logical_not().unsqueeze(-1);
        together.x = together.x.masked_fill(&absent, f64::NAN);
        let vectors = pooling.forward(&together).unwrap();
        for (i, video) in videos.into_iter().enumerate() {
            let alone = pooling.forward(&pad(&[video])).unwrap();
            assert!(largest_difference(&vectors.narrow(0, i as i64, 1), &alone) < 1e-6, "video {i}");
        }
        assert_eq!(Vec::<f32>::try_from(vectors.get(2)).unwrap(), [0.0; 4]);
    }

    #[test]
    fn one_frame_is_its_value_projection() {
        let (_store, pooling) = pooling(6, 4);
        let frames = pad(&videos(&[1, 1]));
        let projected = frames.x.squeeze_dim(1).linear(&pooling.value.ws, pooling.value.bs.as_ref());
        assert!(largest_difference(&pooling.forward(&frames).unwrap(), &projected) < 1e-6);
    }

    #[test]
    fn the_vector_agrees_with_the_formula() {
        let (_store, pooling) = pooling(6, 1);
        let video = videos(&[3]);
        let query = Vec::<f32>::try_from(&pooling.query).unwrap();
        let value = Vec::<f32>::try_from(pooling.value.ws.view([-1])).unwrap();
        let bias = f32::try_from(pooling.value.bs.as_ref().unwrap().get(0)).unwrap();
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        let weights: Vec<f32> = video[0].iter().map(|f| (dot(&query, f) / 6f32.sqrt()).exp()).collect();
        let sum: f32 = weights.iter().sum();
        let expected: f32 = video[0].iter().zip(&weights).map(|(f, w)| w / sum * (dot(&value, f) + bias)).sum();
        let got = pooling.forward(&pad(&video)).unwrap().double_value(&[0, 0]);
        assert!((got - f64::from(expected)).abs() < 1e-5, "{got} {expected}");
    }

    #[test]
    fn the_query_learns_which_frame_matters() {
        let (store, pooling) = pooling(6, 1);
        // The target is the last number of each video's marked frame; the mean over frames cannot give it.
        let mut videos = videos(&[8; 40]);
        for (i, video) in videos.iter_mut().enumerate() {
            video.iter_mut().enumerate().for_each(|(j, frame)| frame[0] = if j == i % 8 { 4.0 } else { 0.0 });
        }
        let wanted: Vec<f32> = videos.iter().enumerate().map(|(i, video)| video[i % 8][5]).collect();
        let wanted = Tensor::from_slice(&wanted).view([-1, 1]);
        let frames = pad(&videos);
        let loss = || pooling.forward(&frames).unwrap().mse_loss(&wanted, tch::Reduction::Mean);
        let mut optimizer = nn::Adam::default().build(&store, 5e-2).unwrap();
        for _ in 0..300 {
            optimizer.backward_step(&loss());
        }
        assert!(loss().double_value(&[]) < 0.01, "{:?}", loss());
        let weight = pooling.weights(&frames).unwrap().get(3).double_value(&[3]);
        assert!(weight > 0.8, "{weight}");
    }

    #[test]
    fn gradients_of_a_video_without_frames_are_finite() {
        let (store, pooling) = pooling(6, 4);
        let frames = pad(&videos(&[0, 2]));
        pooling.forward(&frames).unwrap().sum(Kind::Float).backward();
        for (name, variable) in store.variables() {
            assert_eq!(variable.grad().isfinite().all().int64_value(&[]), 1, "{name}");
        }
    }
}
