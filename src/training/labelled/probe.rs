//! The head learns first, on the vectors that the encoder gives before any label has changed it, computed once; every
//! strategy goes on from there (Kumar et al. 2022, arXiv 2202.10054: below a random head, fine-tuning unlearns what the
//! encoder knew). For a frozen encoder that is all.
//!
//! A logistic regression: all rows in every step, to convergence, with as strong a penalty as the validation rows ask for.

use std::collections::BTreeMap;
use tch::{Kind, Tensor, nn};

use super::goal::Goal;
use super::{Reader, lbfgs, parts};
use crate::config::Config;
use crate::config::networks::LossName;
use crate::failure::{Failure, Result};
use crate::model::labels::{HeadSizes, LabelHead, LabelStructure};

/// How little the penalty weighs, as scikit-learn's C counts it; from strong to weak, until validation gets worse.
const LENIENCES: [f64; 4] = [0.1, 1.0, 10.0, 100.0];
/// Numbers of all vectors and scores together: they lie in memory at once, some of them a few times.
const NUMBERS_MAX: usize = 100_000_000;
/// The head's linear map and its bias, by their names in the head's part of the store. A bias is not penalised.
const MAP: &str = "map.weight";
const BIAS: &str = "map.bias";

/// Teaches a reader's head, whose variables lie in `store`, by the loss that the configuration names, in at most `steps_max`
/// steps for each penalty; gives figures. Rows are those of training and validation.
pub fn teach(
    config: &Config,
    reader: &impl Reader,
    (store, steps_max): (&nn::VarStore, u32),
    goal: &Goal,
    [train, valid]: [&[usize]; 2],
) -> Result<BTreeMap<String, f64>> {
    let clock = std::time::Instant::now();
    let HeadSizes { width, labels } = reader.head().sizes();
    let most = NUMBERS_MAX / (width as usize + labels);
    let (train, valid) = (evenly(train, most), evenly(valid, most));
    let of = |rows: &[usize]| -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        Ok(reader.in_batches(rows, &|vectors| Ok(vectors.shallow_clone()))?.f_to_device(reader.device())?)
    };
    let (inputs, unseen) = (of(&train)?, of(&valid)?);
    let shift = Shift::of(&inputs)?;
    let mut probe = Probe {
        head: FlatHead::new(reader, goal)?,
        goal,
        train: (shift.shifted(&inputs)?, goal.targets.of(&train)?.f_to_device(reader.device())?),
        valid: (shift.shifted(&unseen)?, goal.targets.of(&valid)?.f_to_device(reader.device())?),
        smoothing: config.train.label_smoothing,
        steps_max,
        steps: 0,
    };
    let learnt = probe.learn(config.model.loss)?;
    let weights = shift.folded(probe.head.named(&learnt.at)?)?;
    let _guard = tch::no_grad_guard();
    for (name, mut variable) in store.variables() {
        if let (parts::HEAD, own) = parts::part(&name)
            && let Some(value) = weights.get(own)
        {
            variable.f_copy_(value)?;
        }
    }
    Ok(BTreeMap::from([
        ("head_steps".to_string(), probe.steps.into()),
        ("head_loss_valid".to_string(), learnt.loss),
        ("head_lenience".to_string(), learnt.lenience),
        ("head_seconds".to_string(), clock.elapsed().as_secs_f64()),
    ]))
}

/// At most so many rows, from all over.
fn evenly(rows: &[usize], most: usize) -> Vec<usize> {
    rows.iter().copied().step_by(rows.len().div_ceil(most.max(1)).max(1)).collect()
}

/// Vectors around their mean, and of length one in the mean: one penalty then means the same for every encoder, and what
/// all rows have in common, often most of a vector, is left to the bias.
struct Shift {
    /// [width]
    mean: Tensor,
    scale: f64,
}

impl Shift {
    fn of(vectors: &Tensor) -> Result<Self> {
        let mean = vectors.f_mean_dim([0i64].as_slice(), false, Kind::Float)?;
        let squares = vectors.f_sub(&mean)?.f_square()?.f_sum(Kind::Float)?.f_double_value(&[])?;
        let scale = (squares / vectors.size()[0].max(1) as f64).sqrt();
        // Rows that are all the same have nothing to scale.
        Ok(Self { mean, scale: if scale > 1e-12 { scale } else { 1.0 } })
    }

    fn shifted(&self, vectors: &Tensor) -> Result<Tensor> {
        Ok(vectors.f_sub(&self.mean)?.f_div_scalar(self.scale)?)
    }

    /// Weights that give on vectors as they are what these give on shifted ones.
    fn folded(&self, mut weights: BTreeMap<String, Tensor>) -> Result<BTreeMap<String, Tensor>> {
        let (Some(map), Some(bias)) = (weights.get(MAP), weights.get(BIAS)) else {
            return Err(Failure::bug("the head has no linear map"));
        };
        let map = map.f_div_scalar(self.scale)?;
        let bias = bias.f_sub(&map.f_mv(&self.mean)?)?;
        weights.insert(MAP.into(), map);
        weights.insert(BIAS.into(), bias);
        Ok(weights)
    }
}

/// A head of its own that starts from nothing, and its weights as one row of numbers in the order of their names.
struct FlatHead {
    head: LabelHead,
    named: BTreeMap<String, Tensor>,
    /// One where a weight is penalised: float32 [weights].
    penalised: Tensor,
    _store: nn::VarStore,
}

impl FlatHead {
    fn new(reader: &impl Reader, goal: &Goal) -> Result<Self> {
        let store = nn::VarStore::new(reader.device());
        let head = LabelHead::new(&store.root(), goal.targets.kind, reader.head().sizes());
        let named: BTreeMap<String, Tensor> = store.variables().into_iter().collect();
        let _guard = tch::no_grad_guard();
        let mut penalised = Vec::new();
        for (name, weight) in &named {
            let _ = weight.shallow_clone().f_zero_()?;
            let flat = weight.f_view([-1])?;
            penalised.push(if name == BIAS { flat.f_zeros_like()? } else { flat.f_ones_like()? });
        }
        Ok(Self { head, named, penalised: Tensor::f_cat(&penalised, 0)?, _store: store })
    }

    /// The pieces of one row of numbers, in the shapes of the weights.
    fn named(&self, flat: &Tensor) -> Result<BTreeMap<String, Tensor>> {
        let (mut named, mut start) = (BTreeMap::new(), 0);
        for (name, weight) in &self.named {
            let length = weight.numel() as i64;
            named.insert(name.clone(), flat.f_narrow(0, start, length)?.f_view(weight.size().as_slice())?);
            start += length;
        }
        Ok(named)
    }

    fn put(&self, flat: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let pieces = self.named(flat)?;
        for (weight, piece) in self.named.values().zip(pieces.values()) {
            weight.shallow_clone().f_copy_(piece)?;
        }
        Ok(())
    }

    fn gradient(&self) -> Result<Tensor> {
        let of = |weight: &Tensor| -> Result<Tensor> {
            let gradient = weight.grad();
            let gradient = if gradient.defined() { gradient } else { weight.f_zeros_like()? };
            Ok(gradient.f_detach()?.f_reshape([-1])?)
        };
        Ok(Tensor::f_cat(&self.named.values().map(of).collect::<Result<Vec<_>>>()?, 0)?)
    }
}

/// Weights that were found, and how they do on the validation rows.
struct Learnt {
    at: Tensor,
    loss: f64,
    lenience: f64,
}

struct Probe<'a> {
    head: FlatHead,
    goal: &'a Goal,
    /// Shifted vectors, and zeros and ones of their rows: float32 [rows, labels].
    train: (Tensor, Tensor),
    valid: (Tensor, Tensor),
    smoothing: f64,
    steps_max: u32,
    steps: u32,
}

impl Probe<'_> {
    /// First by likelihood, whatever the loss: the others have places where every gradient is nothing (an overlap whose
    /// answer is yes for every row), and from a start that knows nothing they lie on the way.
    fn learn(&mut self, loss: LossName) -> Result<Learnt> {
        let mut best: Option<Learnt> = None;
        for lenience in LENIENCES {
            let from = match &best {
                Some(best) => best.at.shallow_clone(),
                None => self.head.penalised.f_zeros_like()?,
            };
            let next = self.fitted(from, lenience, LossName::Bce)?;
            match &best {
                Some(best) if next.loss >= best.loss => break,
                _ => best = Some(next),
            }
        }
        let Some(likely) = best else { return Err(Failure::bug("no penalty to learn with")) };
        match loss {
            LossName::Bce | LossName::Crf => return Ok(likely),
            LossName::Focal | LossName::Iou => {}
        }
        let before = Learnt { loss: self.validated(&likely.at, loss)?, ..likely };
        let after = self.fitted(before.at.shallow_clone(), before.lenience, loss)?;
        Ok(if after.loss < before.loss { after } else { before })
    }

    fn fitted(&mut self, from: Tensor, lenience: f64, by: LossName) -> Result<Learnt> {
        let found = lbfgs::least(from, self.steps_max, |at| self.value(at, lenience, by))?;
        self.steps += found.steps;
        let loss = self.validated(&found.at, by)?;
        Ok(Learnt { at: found.at, loss, lenience })
    }

    /// scikit-learn's objective, over C and the number of rows: mean loss + |weights|² / (2 C rows). A loss that is a mean
    /// over labels asks for a penalty that is one, too.
    fn value(&self, at: &Tensor, lenience: f64, by: LossName) -> Result<(f64, Tensor)> {
        self.head.put(at)?;
        self.head.named.values().for_each(|weight| weight.shallow_clone().zero_grad());
        let (vectors, ones) = &self.train;
        let raw = self.head.head.logits(vectors)?;
        let loss = self.goal.loss((&self.head.head, &raw), ones, self.smoothing, by)?;
        loss.f_backward()?;
        let _guard = tch::no_grad_guard();
        let labels = match self.goal.targets.kind {
            LabelStructure::Multi => self.goal.targets.labels.len(),
            LabelStructure::Single | LabelStructure::Chain => 1,
        };
        let share = 1.0 / (lenience * (vectors.size()[0] as usize * labels).max(1) as f64);
        let penalised = at.f_mul(&self.head.penalised)?;
        let penalty = 0.5 * share * penalised.f_dot(&penalised)?.f_double_value(&[])?;
        let gradient = self.head.gradient()?.f_add(&penalised.f_mul_scalar(share)?)?;
        Ok((loss.double_value(&[]) + penalty, gradient))
    }

    fn validated(&self, at: &Tensor, by: LossName) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        self.head.put(at)?;
        let (vectors, ones) = &self.valid;
        let raw = self.head.head.logits(vectors)?;
        Ok(self.goal.loss((&self.head.head, &raw), ones, 0.0, by)?.double_value(&[]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn weights_on_shifted_vectors_fold_into_weights_on_vectors_as_they_are() {
        tch::manual_seed(1);
        let vectors = Tensor::randn([50, 4], (Kind::Float, Device::Cpu)) * 0.01 + 3.0;
        let shift = Shift::of(&vectors).unwrap();
        let shifted = shift.shifted(&vectors).unwrap();
        let length = (shifted.square().sum(Kind::Float) / 50.0).double_value(&[]);
        assert!((length - 1.0).abs() < 1e-3 && shifted.mean(Kind::Float).double_value(&[]).abs() < 1e-3, "{length}");
        let (map, bias) = (Tensor::randn([2, 4], (Kind::Float, Device::Cpu)), Tensor::from_slice(&[0.5f32, -1.0]));
        let on_shifted = shifted.linear(&map, Some(&bias));
        let named = BTreeMap::from([(MAP.to_string(), map), (BIAS.to_string(), bias)]);
        let folded = shift.folded(named).unwrap();
        let on_plain = vectors.linear(&folded[MAP], Some(&folded[BIAS]));
        assert!((on_shifted - on_plain).abs().max().double_value(&[]) < 1e-2);
        let same = Shift::of(&Tensor::ones([3, 4], (Kind::Float, Device::Cpu))).unwrap();
        assert_eq!(same.scale, 1.0, "rows that are all the same");
    }

    #[test]
    fn rows_come_from_all_over_and_are_no_more_than_fit() {
        let rows: Vec<usize> = (100..200).collect();
        assert_eq!(evenly(&rows, 100), rows);
        assert_eq!(evenly(&rows, 40), (100..200).step_by(3).collect::<Vec<_>>());
        assert_eq!((evenly(&rows, 0).len(), evenly(&[], 5).len()), (1, 0));
    }
}
