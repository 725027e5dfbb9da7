//! Fits the head alone, on the vectors of the untrained encoder, computed once. Every strategy starts from there (Kumar
//! et al. 2022, arXiv 2202.10054: below a random head, fine-tuning unlearns what the encoder knew). With a frozen
//! encoder, nothing else is trained.
//!
//! The fit is a logistic regression: all rows in every step, to convergence, with the penalty that is best on the
//! validation rows.

use std::collections::BTreeMap;
use tch::{Kind, Tensor, nn};

use super::loss::ClassifierLoss;
use super::row_encoder::RowEncoder;
use super::{lbfgs, weight_groups};
use crate::config::networks::LossName;
use crate::failure::{Failure, Result};
use crate::model::labels::{HeadSizes, LabelHead, LabelStructure};

/// Inverse penalties, as scikit-learn's C; from strong to weak penalties, until the validation loss rises.
const INVERSE_PENALTIES: [f64; 4] = [0.1, 1.0, 10.0, 100.0];
/// Limits the numbers of all vectors and logits, which are in memory at once, some of them several times.
const NUMBERS_MAX: usize = 100_000_000;
/// The head's linear map in its group of weights.
const MAP: &str = "map.weight";
/// The bias of the linear map, which is not penalised.
const BIAS: &str = "map.bias";

/// Settings and data for fitting a head.
pub(crate) struct HeadFit<'a> {
    pub(crate) loss: &'a ClassifierLoss,
    pub(crate) loss_name: LossName,
    pub(crate) label_smoothing: f64,
    /// Limits the steps for each penalty.
    pub(crate) steps_max: u32,
    pub(crate) train: &'a [usize],
    pub(crate) valid: &'a [usize],
}

/// Fits an encoder's head, whose variables are in `store`, and returns figures.
pub(crate) fn fit_head(
    encoder: &impl RowEncoder,
    store: &nn::VarStore,
    fit: HeadFit<'_>,
) -> Result<BTreeMap<String, f64>> {
    let clock = std::time::Instant::now();
    let HeadSizes { width, labels } = encoder.head().sizes();
    let rows_max = NUMBERS_MAX / (width as usize + labels);
    let train = thin_out(fit.train, rows_max);
    let valid = thin_out(fit.valid, rows_max);
    let train_vectors = vectors(encoder, &train)?;
    let valid_vectors = vectors(encoder, &valid)?;
    let scaling = VectorScaling::fit(&train_vectors)?;
    let examples = |vectors: &Tensor, rows: &[usize]| -> Result<Examples> {
        Ok(Examples {
            vectors: scaling.apply(vectors)?,
            ones: fit.loss.targets.select(rows)?.f_to_device(encoder.device())?,
        })
    };
    let mut probe = LinearProbe {
        head: FlatHead::new(encoder, fit.loss)?,
        loss: fit.loss,
        train: examples(&train_vectors, &train)?,
        valid: examples(&valid_vectors, &valid)?,
        smoothing: fit.label_smoothing,
        steps_max: fit.steps_max,
        steps: 0,
    };
    let fitted = probe.fit(fit.loss_name)?;
    copy_into_store(store, &scaling.fold(probe.head.by_name(&fitted.weights)?)?)?;
    Ok(BTreeMap::from([
        ("head_steps".to_string(), probe.steps.into()),
        ("head_loss_valid".to_string(), fitted.valid_loss),
        ("head_lenience".to_string(), fitted.inverse_penalty),
        ("head_seconds".to_string(), clock.elapsed().as_secs_f64()),
    ]))
}

fn vectors(encoder: &impl RowEncoder, rows: &[usize]) -> Result<Tensor> {
    let _guard = tch::no_grad_guard();
    let vectors = encoder.map_vectors(rows, &|vectors| Ok(vectors.shallow_clone()))?;
    Ok(vectors.f_to_device(encoder.device())?)
}

/// Copies the fitted weights to the variables of the head.
fn copy_into_store(store: &nn::VarStore, weights: &BTreeMap<String, Tensor>) -> Result<()> {
    let _guard = tch::no_grad_guard();
    for (name, mut variable) in store.variables() {
        if let (weight_groups::HEAD, name_in_group) = weight_groups::split_group(&name)
            && let Some(value) = weights.get(name_in_group)
        {
            variable.f_copy_(value)?;
        }
    }
    Ok(())
}

/// Returns at most `rows_max` rows, evenly spaced.
fn thin_out(rows: &[usize], rows_max: usize) -> Vec<usize> {
    rows.iter().copied().step_by(rows.len().div_ceil(rows_max.max(1)).max(1)).collect()
}

/// Centres vectors and scales them to a root mean square length of one. One penalty then means the same for every
/// encoder, and the common part of all vectors, often the largest, is left to the bias.
struct VectorScaling {
    /// [width]
    mean: Tensor,
    scale: f64,
}

impl VectorScaling {
    fn fit(vectors: &Tensor) -> Result<Self> {
        let mean = vectors.f_mean_dim([0i64].as_slice(), false, Kind::Float)?;
        let squares = vectors.f_sub(&mean)?.f_square()?.f_sum(Kind::Float)?.f_double_value(&[])?;
        let scale = (squares / vectors.size()[0].max(1) as f64).sqrt();
        // Equal rows have nothing to scale.
        Ok(Self { mean, scale: if scale > 1e-12 { scale } else { 1.0 } })
    }

    fn apply(&self, vectors: &Tensor) -> Result<Tensor> {
        Ok(vectors.f_sub(&self.mean)?.f_div_scalar(self.scale)?)
    }

    /// Converts weights on scaled vectors to equivalent ones on the original vectors.
    fn fold(&self, mut weights: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        let (Some(scaled_map), Some(scaled_bias)) = (weights.get(MAP), weights.get(BIAS)) else {
            return Err(Failure::bug("the head has no linear map"));
        };
        let map = scaled_map.f_div_scalar(self.scale)?;
        let bias = scaled_bias.f_sub(&map.f_mv(&self.mean)?)?;
        weights.insert(MAP.into(), map);
        weights.insert(BIAS.into(), bias);
        Ok(weights)
    }
}

/// A head of zeros, with its weights as one flat tensor in the order of their names.
struct FlatHead {
    head: LabelHead,
    weights: BTreeMap<String, Tensor>,
    /// float32 [weights]: one if a weight is penalised, else zero.
    is_penalised: Tensor,
    _store: nn::VarStore,
}

impl FlatHead {
    fn new(encoder: &impl RowEncoder, loss: &ClassifierLoss) -> Result<Self> {
        let store = nn::VarStore::new(encoder.device());
        let head = LabelHead::new(&store.root(), loss.targets.kind, encoder.head().sizes());
        let weights: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        let _guard = tch::no_grad_guard();
        let mut is_penalised = Vec::new();
        for (name, weight) in &weights {
            let _ = weight.shallow_clone().f_zero_()?;
            let flat = weight.f_view([-1])?;
            is_penalised.push(if name == BIAS { flat.f_zeros_like()? } else { flat.f_ones_like()? });
        }
        Ok(Self { head, weights, is_penalised: Tensor::f_cat(&is_penalised, 0)?, _store: store })
    }

    /// Cuts a flat tensor into weights of their shapes.
    fn by_name(&self, flat: &Tensor) -> Result<BTreeMap<String, Tensor>> {
        let mut by_name = BTreeMap::new();
        let mut start = 0;
        for (name, weight) in &self.weights {
            let length = weight.numel() as i64;
            by_name.insert(name.clone(), flat.f_narrow(0, start, length)?.f_view(weight.size().as_slice())?);
            start += length;
        }
        Ok(by_name)
    }

    fn set_weights(&self, flat: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let values = self.by_name(flat)?;
        for (weight, value) in self.weights.values().zip(values.values()) {
            weight.shallow_clone().f_copy_(value)?;
        }
        Ok(())
    }

    fn zero_gradients(&self) {
        for weight in self.weights.values() {
            weight.shallow_clone().zero_grad();
        }
    }

    fn gradient(&self) -> Result<Tensor> {
        let mut flat = Vec::new();
        for weight in self.weights.values() {
            let gradient = weight.grad();
            let defined = if gradient.defined() { gradient } else { weight.f_zeros_like()? };
            flat.push(defined.f_detach()?.f_reshape([-1])?);
        }
        Ok(Tensor::f_cat(&flat, 0)?)
    }
}

/// Fitted weights, and their validation loss.
struct FittedHead {
    weights: Tensor,
    valid_loss: f64,
    inverse_penalty: f64,
}

/// The rows that a fit uses.
struct Examples {
    /// Scaled, float32 [rows, width].
    vectors: Tensor,
    /// float32 [rows, labels].
    ones: Tensor,
}

struct LinearProbe<'a> {
    head: FlatHead,
    loss: &'a ClassifierLoss,
    train: Examples,
    valid: Examples,
    smoothing: f64,
    steps_max: u32,
    steps: u32,
}

impl LinearProbe<'_> {
    /// Fits by likelihood first, whatever the loss: other losses have regions without a gradient (an overlap if every
    /// answer is yes), and a search from zero would cross them.
    fn fit(&mut self, loss: LossName) -> Result<FittedHead> {
        let mut best: Option<FittedHead> = None;
        for inverse_penalty in INVERSE_PENALTIES {
            let start = match &best {
                Some(best) => best.weights.shallow_clone(),
                None => self.head.is_penalised.f_zeros_like()?,
            };
            let next = self.fit_once(start, inverse_penalty, LossName::Bce)?;
            match &best {
                Some(best) if next.valid_loss >= best.valid_loss => break,
                _ => best = Some(next),
            }
        }
        let Some(by_likelihood) = best else { return Err(Failure::bug("no penalty to fit with")) };
        match loss {
            LossName::Bce | LossName::Crf => return Ok(by_likelihood),
            LossName::Focal | LossName::Iou => {}
        }
        let valid_loss = self.valid_loss(&by_likelihood.weights, loss)?;
        let before = FittedHead { valid_loss, ..by_likelihood };
        let after = self.fit_once(before.weights.shallow_clone(), before.inverse_penalty, loss)?;
        Ok(if after.valid_loss < before.valid_loss { after } else { before })
    }

    fn fit_once(&mut self, start: Tensor, inverse_penalty: f64, loss: LossName) -> Result<FittedHead> {
        let found = lbfgs::minimise(start, self.steps_max, |at| self.objective(at, inverse_penalty, loss))?;
        self.steps += found.steps;
        let valid_loss = self.valid_loss(&found.at, loss)?;
        Ok(FittedHead { weights: found.at, valid_loss, inverse_penalty })
    }

    /// Returns scikit-learn's objective divided by C and the number of rows, mean loss + |weights|² / (2 C rows), with
    /// its gradient. For a loss that is a mean over labels, the penalty is also divided by the number of labels.
    fn objective(&self, at: &Tensor, inverse_penalty: f64, loss: LossName) -> Result<(f64, Tensor)> {
        self.head.set_weights(at)?;
        self.head.zero_gradients();
        let Examples { vectors, ones } = &self.train;
        let logits = self.head.head.logits(vectors)?;
        let mean_loss = self.loss.mean(&self.head.head, &logits, ones, self.smoothing, loss)?;
        mean_loss.f_backward()?;
        let _guard = tch::no_grad_guard();
        let labels = match self.loss.targets.kind {
            LabelStructure::Multi => self.loss.targets.labels.len(),
            LabelStructure::Single | LabelStructure::Chain => 1,
        };
        let share = 1.0 / (inverse_penalty * (vectors.size()[0] as usize * labels).max(1) as f64);
        let penalised = at.f_mul(&self.head.is_penalised)?;
        let penalty = 0.5 * share * penalised.f_dot(&penalised)?.f_double_value(&[])?;
        let gradient = self.head.gradient()?.f_add(&penalised.f_mul_scalar(share)?)?;
        Ok((mean_loss.double_value(&[]) + penalty, gradient))
    }

    fn valid_loss(&self, at: &Tensor, loss: LossName) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        self.head.set_weights(at)?;
        let Examples { vectors, ones } = &self.valid;
        let logits = self.head.head.logits(vectors)?;
        Ok(self.loss.mean(&self.head.head, &logits, ones, 0.0, loss)?.double_value(&[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn folded_weights_give_the_same_on_unscaled_vectors() {
        tch::manual_seed(1);
        let vectors = Tensor::randn([50, 4], (Kind::Float, Device::Cpu)) * 0.01 + 3.0;
        let scaling = VectorScaling::fit(&vectors).unwrap();
        let scaled = scaling.apply(&vectors).unwrap();
        let length = (scaled.square().sum(Kind::Float) / 50.0).double_value(&[]);
        assert!((length - 1.0).abs() < 1e-3 && scaled.mean(Kind::Float).double_value(&[]).abs() < 1e-3, "{length}");
        let (map, bias) = (Tensor::randn([2, 4], (Kind::Float, Device::Cpu)), Tensor::from_slice(&[0.5f32, -1.0]));
        let on_scaled = scaled.linear(&map, Some(&bias));
        let weights = BTreeMap::from([(MAP.to_string(), map), (BIAS.to_string(), bias)]);
        let folded = scaling.fold(weights).unwrap();
        let on_unscaled = vectors.linear(&folded[MAP], Some(&folded[BIAS]));
        assert!((on_scaled - on_unscaled).abs().max().double_value(&[]) < 1e-2);
        let constant = VectorScaling::fit(&Tensor::ones([3, 4], (Kind::Float, Device::Cpu))).unwrap();
        assert_eq!(constant.scale, 1.0, "equal rows");
    }

    #[test]
    fn thinned_rows_are_evenly_spaced_and_within_the_limit() {
        let rows: Vec<usize> = (100..200).collect();
        assert_eq!(thin_out(&rows, 100), rows);
        assert_eq!(thin_out(&rows, 40), (100..200).step_by(3).collect::<Vec<_>>());
        assert_eq!((thin_out(&rows, 0).len(), thin_out(&[], 5).len()), (1, 0));
    }
}
