//! The NT-Xent loss of contrastive pretraining.

use tch::{Kind, Tensor};

/// Temperature of the softmax over similarities; lower is sharper.
const TEMPERATURE: f64 = 0.2;

/// NT-Xent of two views, float32 [histories, width] each: row i of one view belongs to row i of the other.
pub(crate) fn nt_xent(one: &Tensor, other: &Tensor) -> Tensor {
    let n = one.size()[0];
    let both = Tensor::cat(&[one, other], 0);
    let length = both.square().sum_dim_intlist(1i64, true, Kind::Float).sqrt().clamp_min(1e-6);
    let unit = both / length;
    let similarity = unit.matmul(&unit.transpose(0, 1)) / TEMPERATURE;
    let itself = Tensor::eye(2 * n, (Kind::Bool, one.device()));
    let partner = Tensor::cat(
        &[Tensor::arange_start(n, 2 * n, (Kind::Int64, one.device())), Tensor::arange(n, (Kind::Int64, one.device()))],
        0,
    );
    similarity.masked_fill(&itself, f64::NEG_INFINITY).cross_entropy_for_logits(&partner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nt_xent_is_the_formula_written_out() {
        let one = Tensor::from_slice(&[1.0f32, 0.0, 0.6, 0.8]).view([2, 2]);
        let other = Tensor::from_slice(&[2.0f32, 0.0, 0.0, 1.0]).view([2, 2]);
        let unit = [[1.0, 0.0], [0.6, 0.8], [1.0, 0.0], [0.0, 1.0]];
        let similarity = |i: usize, j: usize| (unit[i][0] * unit[j][0] + unit[i][1] * unit[j][1]) / TEMPERATURE;
        let loss = |i: usize, partner: usize| -> f64 {
            let sum: f64 = (0..4).filter(|&j| j != i).map(|j| f64::exp(similarity(i, j))).sum();
            sum.ln() - similarity(i, partner)
        };
        let expected = (loss(0, 2) + loss(1, 3) + loss(2, 0) + loss(3, 1)) / 4.0;
        assert!((nt_xent(&one, &other).double_value(&[]) - expected).abs() < 1e-5);
    }
}
