//! What the behaviour network is trained to do with its labels: the named losses, weighed and added up.

use tch::{Device, Kind, Tensor};

use super::sets::LABELS;
use super::survey::Survey;
use crate::config::networks::{AmountLossName, ClassWeights, LossName};
use crate::config::{ModelConfig, TrainConfig};
use crate::failure::{Failure, Result};
use crate::model::heads::{INTENTS, IntentHead};
use crate::model::intent::{Raw, Scaling};
use crate::model::losses;

const CHURN: i64 = INTENTS.len() as i64;
const AMOUNTS: i64 = CHURN + 1;
/// Binary labels: the intents and churn.
pub const BINARY: usize = CHURN as usize + 1;
/// What units and spend weigh against one intent.
const AMOUNT_WEIGHT: f64 = 0.2;
/// No class weighs more than this, however rare.
const CLASS_WEIGHT_MAX: f64 = 50.0;
/// Where the Huber loss turns linear, in means of a buyer.
const HUBER_DELTA: f64 = 1.0;
/// Between Poisson (1) and gamma (2).
const TWEEDIE_POWER: f64 = 1.5;

#[derive(Debug)]
pub struct Objective {
    loss: LossName,
    focal_gamma: f64,
    amount_loss: AmountLossName,
    label_smoothing: f64,
    /// float32 [7], the weight of a positive label of each intent and of churn.
    positive_weight: Option<Tensor>,
}

impl Objective {
    /// Class weights are those of the labelled users.
    pub fn of(model: &ModelConfig, train: &TrainConfig, users: &Survey, device: Device) -> Result<Self> {
        let positive_weight = match model.class_weights {
            ClassWeights::None => None,
            ClassWeights::Balanced => Some(Tensor::f_from_slice(&balanced(users))?.f_to_device(device)?),
        };
        Ok(Self {
            loss: model.loss,
            focal_gamma: model.focal_gamma,
            amount_loss: model.amount_loss,
            label_smoothing: train.label_smoothing,
            positive_weight,
        })
    }

    /// One number: the intents' loss (summed over the intents, mean over users), churn's, and a share of the amounts'.
    /// `labels`: float32 [users, 9]; smoothed in training alone.
    pub fn loss(&self, head: &dyn IntentHead, raw: &Raw, labels: &Tensor, scaling: &Scaling, train: bool) -> Tensor {
        let smoothing = if train { self.label_smoothing } else { 0.0 };
        let smoothed = |t: Tensor| t * (1.0 - smoothing) + 0.5 * smoothing;
        let intents = self.intents(head, &raw.intents, &smoothed(labels.narrow(1, 0, CHURN)));
        let weight = self.positive_weight.as_ref().map(|w| w.narrow(0, CHURN, 1));
        let churn = losses::cross_entropy(&raw.churn, &smoothed(labels.narrow(1, CHURN, 1)), weight.as_ref());
        let units = Tensor::from_slice(&[scaling.units as f32, scaling.spend as f32]).to_device(labels.device());
        let amounts = self.amounts(&(&raw.amounts + 1e-6), &(labels.narrow(1, AMOUNTS, 2) / units));
        intents + churn.mean(Kind::Float) + amounts * AMOUNT_WEIGHT
    }

    fn intents(&self, head: &dyn IntentHead, raw: &Tensor, labels: &Tensor) -> Tensor {
        let weight = self.positive_weight.as_ref().map(|w| w.narrow(0, 0, CHURN));
        let each = |loss: Tensor| loss.mean_dim(0i64, false, Kind::Float).sum(Kind::Float);
        match self.loss {
            LossName::Bce => each(losses::cross_entropy(raw, labels, weight.as_ref())),
            LossName::Focal => each(losses::focal(raw, labels, self.focal_gamma)),
            LossName::Iou => losses::soft_iou(raw, labels).sum(Kind::Float),
            LossName::Crf => head.surprise(raw, labels).mean(Kind::Float),
        }
    }

    /// Expected units and spend [users, 2] against what came, both in means of a buyer.
    fn amounts(&self, expected: &Tensor, actual: &Tensor) -> Tensor {
        let each = |loss: Tensor| loss.mean_dim(0i64, false, Kind::Float).sum(Kind::Float);
        match self.amount_loss {
            AmountLossName::Poisson => each(losses::poisson(expected, actual)),
            AmountLossName::Mse => each(losses::squared(expected, actual)),
            AmountLossName::Mae => each(losses::absolute(expected, actual)),
            AmountLossName::Rmse => losses::root_mean_squared(expected, actual) * 2.0,
            AmountLossName::Huber => each(losses::huber(expected, actual, HUBER_DELTA)),
            AmountLossName::Tweedie => each(losses::tweedie(expected, actual, TWEEDIE_POWER)),
            AmountLossName::NegativeBinomial => {
                each(losses::negative_binomial(expected, &expected.ones_like(), actual))
            }
        }
    }
}

/// How many negatives stand against one positive, for each binary label; 1 where one of the classes is missing.
fn balanced(users: &Survey) -> Vec<f32> {
    let weight = |&positives: &usize| {
        let (positives, negatives) = (positives as f64, (users.labelled - positives) as f64);
        let weight = if positives == 0.0 || negatives == 0.0 { 1.0 } else { negatives / positives };
        weight.clamp(1.0 / CLASS_WEIGHT_MAX, CLASS_WEIGHT_MAX) as f32
    };
    users.positives.iter().map(weight).collect()
}

/// Refuses a training set in which nobody did anything; names the labels that have one class only, which the network
/// then learns as never (or always).
pub fn check_labels(users: &Survey, horizon_days: u32) -> Result<()> {
    let Survey { labelled, positives, .. } = users;
    if positives[..INTENTS.len()].iter().all(|&n| n == 0) {
        return Err(Failure::input(format!(
            "training: none of {labelled} users did anything within {horizon_days} days after the training dates; \
             there is no positive label"
        ))
        .hint("look at the last days of the lake's events, or train on an earlier --date"));
    }
    let one_class: Vec<&str> =
        LABELS.iter().zip(positives).filter(|&(_, n)| *n == 0 || n == labelled).map(|(name, _)| *name).collect();
    if !one_class.is_empty() {
        tracing::warn!("training: of {} every label is the same, so it has no figure", one_class.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::HeadName;
    use crate::model::heads;
    use tch::nn;

    /// Users of whom so many purchased and did nothing else.
    fn users(labelled: usize, purchased: usize) -> Survey {
        let mut positives = [0; BINARY];
        positives[4] = purchased;
        Survey { labelled, positives, ..Survey::default() }
    }

    fn objective(of: impl Fn(&mut ModelConfig, &mut TrainConfig), users: &Survey) -> Objective {
        let (mut model, mut train) = (ModelConfig::default(), TrainConfig::default());
        of(&mut model, &mut train);
        Objective::of(&model, &train, users, Device::Cpu).unwrap()
    }

    fn raw() -> Raw {
        Raw {
            intents: Tensor::from_slice(&[0.3f32, -0.2, 1.0, 0.0, 2.0, -3.0]).view([1, 6]),
            churn: Tensor::from_slice(&[0.5f32]).view([1, 1]),
            amounts: Tensor::from_slice(&[0.7f32, 1.2]).view([1, 2]),
        }
    }

    const LABELLED: [f32; 9] = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 2.0, 30.0];

    fn loss(objective: &Objective, head: HeadName, train: bool) -> f64 {
        let head = heads::build(&nn::VarStore::new(Device::Cpu).root(), head);
        let scaling = Scaling { units: 2.0, spend: 20.0, ..Default::default() };
        let labels = Tensor::from_slice(&LABELLED).view([1, 9]);
        objective.loss(head.as_ref(), &raw(), &labels, &scaling, train).double_value(&[])
    }

    #[test]
    fn the_parts_add_up() {
        let softplus = |x: f64| (1.0 + x.exp()).ln();
        let bce = |x: f64, y: f64| softplus(x) - x * y;
        let raw = [0.3, -0.2, 1.0, 0.0, 2.0, -3.0, 0.5];
        let binary: f64 = raw.iter().zip(LABELLED).map(|(&x, y)| bce(x, y.into())).sum();
        let poisson = |m: f64, y: f64| m - y * m.ln();
        let wanted = binary + 0.2 * (poisson(0.7, 1.0) + poisson(1.2, 1.5));
        let users = users(10, 5);
        let got = loss(&objective(|_, _| (), &users), HeadName::Sigmoid, true);
        assert!((got - wanted).abs() < 1e-5, "{got} {wanted}");
        // A fresh chain is independent sigmoids, whose likelihood is the cross-entropy.
        let crf = loss(&objective(|m, _| m.loss = LossName::Crf, &users), HeadName::Crf, true);
        assert!((crf - wanted).abs() < 1e-5, "{crf} {wanted}");
    }

    #[test]
    fn labels_are_smoothed_in_training_alone() {
        let users = users(10, 5);
        let (plain, smoothed) = (objective(|_, _| (), &users), objective(|_, t| t.label_smoothing = 0.2, &users));
        assert_eq!(loss(&plain, HeadName::Sigmoid, false), loss(&smoothed, HeadName::Sigmoid, false));
        assert_ne!(loss(&plain, HeadName::Sigmoid, true), loss(&smoothed, HeadName::Sigmoid, true));
    }

    #[test]
    fn balanced_weights_are_the_odds_and_missing_classes_weigh_one() {
        let users = users(40, 10);
        assert_eq!(balanced(&users), [1.0, 1.0, 1.0, 1.0, 3.0, 1.0, 1.0]);
        let objective = objective(|m, _| m.class_weights = ClassWeights::Balanced, &users);
        assert!(loss(&objective, HeadName::Sigmoid, true).is_finite());
    }

    #[test]
    fn a_window_without_a_positive_label_is_refused_and_one_class_is_not() {
        let refused = check_labels(&users(29, 0), 7).unwrap_err();
        assert_eq!(refused.kind.exit_code(), 3);
        assert!(refused.message.contains("none of 29 users did anything within 7 days"), "{refused}");
        check_labels(&users(30, 10), 7).unwrap();
        check_labels(&users(30, 30), 7).unwrap();
    }

    #[test]
    fn every_amount_loss_is_least_near_the_truth() {
        use AmountLossName::*;
        for name in [Poisson, Mse, Mae, Rmse, Huber, Tweedie, NegativeBinomial] {
            let objective = objective(|m, _| m.amount_loss = name, &users(10, 5));
            let actual = Tensor::from_slice(&[1.0f32, 1.5]).view([1, 2]);
            let at = |times: f64| objective.amounts(&(&actual * times), &actual).double_value(&[]);
            assert!(at(1.0) < at(0.7) && at(1.0) < at(1.4), "{name:?}");
        }
    }
}
