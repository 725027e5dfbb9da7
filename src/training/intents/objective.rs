//! The training objective of the intent network on its labels: a weighted sum of the configured losses.

use tch::{Device, Kind, Tensor};

use crate::config::networks::{AmountLossName, ClassWeights, LossName};
use crate::config::{ModelConfig, TrainConfig};
use crate::failure::Result;
use crate::model::heads::IntentHead;
use crate::model::intent::RawOutputs;
use crate::model::losses;
use crate::model::scaling::Scaling;
use crate::model::targets::{AMOUNTS, BINARY, CHURN, PURCHASE};
use crate::training::datasets::UserStatistics;

/// Weight of units and spend against one intent.
const AMOUNT_WEIGHT: f64 = 0.2;
/// The largest weight of a class, however rare.
const CLASS_WEIGHT_MAX: f64 = 50.0;
/// The largest weight of purchases against other labels: a dozen buyers are no more than a dozen samples.
const PURCHASE_WEIGHT_MAX: f64 = 10.0;
/// Deviation at which the Huber loss becomes linear, in means of a buyer.
const HUBER_DELTA: f64 = 1.0;
/// Power of the Tweedie loss, between Poisson (1) and gamma (2).
const TWEEDIE_POWER: f64 = 1.5;

#[derive(Debug)]
pub(crate) struct Objective {
    loss: LossName,
    focal_gamma: f64,
    amount_loss: AmountLossName,
    label_smoothing: f64,
    /// float32 [binary targets]: weight of a positive label of each intent and of churn.
    positive_weight: Option<Tensor>,
    /// float32 [binary targets]: weight of the loss of each binary label, see [`label_weights`].
    label_weight: Tensor,
}

impl Objective {
    /// Class weights follow from the labelled users.
    pub(crate) fn new(
        model: &ModelConfig,
        train: &TrainConfig,
        users: &UserStatistics,
        device: Device,
    ) -> Result<Self> {
        let class_weights = match model.class_weights {
            ClassWeights::None => None,
            ClassWeights::Balanced => Some(balanced(users)),
        };
        let purchase_share = match model.loss {
            LossName::Bce | LossName::Focal => model.purchase_share,
            // These losses have no weight per intent: an overlap is a share already, a likelihood covers all labels at once.
            LossName::Iou | LossName::Crf => 0.0,
        };
        let label_weight = label_weights(purchase_share, &users.base_rates(), class_weights.as_deref());
        let on_device = |weights: &[f32]| Tensor::f_from_slice(weights)?.f_to_device(device);
        Ok(Self {
            loss: model.loss,
            focal_gamma: model.focal_gamma,
            amount_loss: model.amount_loss,
            label_smoothing: train.label_smoothing,
            positive_weight: class_weights.as_deref().map(on_device).transpose()?,
            label_weight: on_device(&label_weight)?,
        })
    }

    /// The loss as one number: of the intents (weighted and summed over the intents, mean over users), of churn, and a share
    /// of that of the amounts. `labels` are float32 [users, targets], NaN where churn is unknown; they are smoothed in training
    /// only.
    pub(crate) fn loss(
        &self,
        head: &dyn IntentHead,
        raw: &RawOutputs,
        labels: &Tensor,
        scaling: &Scaling,
        train: bool,
    ) -> Tensor {
        let smoothing = if train { self.label_smoothing } else { 0.0 };
        let smoothed = |t: Tensor| t * (1.0 - smoothing) + 0.5 * smoothing;
        let intents = self.intents(head, &raw.intents, &smoothed(labels.narrow(1, 0, CHURN)));
        let weight = self.positive_weight.as_ref().map(|w| w.narrow(0, CHURN, 1));
        let churned = labels.narrow(1, CHURN, 1);
        let known = churned.isfinite().to_kind(Kind::Float);
        let churn_losses = calibrated(&raw.churn, &smoothed(churned.nan_to_num(0.0, None, None)), weight.as_ref());
        let churn = (churn_losses * &known).sum(Kind::Float) / known.sum(Kind::Float).clamp_min(1.0);
        let units = Tensor::from_slice(&[scaling.units as f32, scaling.spend as f32]).to_device(labels.device());
        let amounts = self.amounts(&(&raw.amounts + 1e-6), &(labels.narrow(1, BINARY as i64, AMOUNTS as i64) / units));
        intents + churn * self.label_weight.get(CHURN) + amounts * AMOUNT_WEIGHT
    }

    fn intents(&self, head: &dyn IntentHead, raw: &Tensor, labels: &Tensor) -> Tensor {
        let weight = self.positive_weight.as_ref().map(|w| w.narrow(0, 0, CHURN));
        let weights = self.label_weight.narrow(0, 0, CHURN);
        let each = |loss: Tensor| (loss.mean_dim(0i64, false, Kind::Float) * &weights).sum(Kind::Float);
        match self.loss {
            LossName::Bce => each(calibrated(raw, labels, weight.as_ref())),
            LossName::Focal => each(losses::focal(raw, labels, self.focal_gamma)),
            LossName::Iou => losses::soft_iou(raw, labels).sum(Kind::Float),
            LossName::Crf => head.negative_log_likelihood(raw, labels).mean(Kind::Float),
        }
    }

    /// Loss of the expected units and spend [users, 2] against the actual ones, both in means of a buyer.
    fn amounts(&self, expected: &Tensor, actual: &Tensor) -> Tensor {
        let each = |loss: Tensor| loss.mean_dim(0i64, false, Kind::Float).sum(Kind::Float);
        match self.amount_loss {
            AmountLossName::Poisson => each(losses::poisson(expected, actual)),
            AmountLossName::Mse => each(losses::squared_error(expected, actual)),
            AmountLossName::Mae => each(losses::absolute_error(expected, actual)),
            AmountLossName::Rmse => losses::root_mean_squared_error(expected, actual) * 2.0,
            AmountLossName::Huber => each(losses::huber(expected, actual, HUBER_DELTA)),
            AmountLossName::Tweedie => each(losses::tweedie(expected, actual, TWEEDIE_POWER)),
            AmountLossName::NegativeBinomial => {
                each(losses::negative_binomial(expected, &expected.ones_like(), actual))
            }
        }
    }
}

/// Cross-entropy with weighted positives, of scores raised by the log of the weight. It is lowest where a score is the
/// log-odds of the data, not the weighted log-odds (logit adjustment, Menon et al. 2021, arXiv 2007.07314): the published
/// scores are probabilities, and sums of them are demand.
fn calibrated(raw: &Tensor, labels: &Tensor, weight: Option<&Tensor>) -> Tensor {
    match weight {
        Some(weight) => losses::cross_entropy(&(raw + weight.log()), labels, Some(weight)),
        None => losses::cross_entropy(raw, labels, None),
    }
}

/// Negatives per positive of each binary label; 1 where a class is missing.
fn balanced(users: &UserStatistics) -> Vec<f32> {
    let weight = |(&positives, &known): (&usize, &usize)| {
        let (positives, negatives) = (positives as f64, (known - positives) as f64);
        let weight = if positives == 0.0 || negatives == 0.0 { 1.0 } else { negatives / positives };
        weight.clamp(1.0 / CLASS_WEIGHT_MAX, CLASS_WEIGHT_MAX) as f32
    };
    users.positives.iter().zip(&users.known).map(weight).collect()
}

/// Weight of the loss of each binary label, from the base rates and the weights of positives.
///
/// In a plain sum of cross-entropies the common labels dominate: purchases are rare and weigh little, so the network would
/// mostly learn to predict views. A loss relative to its value without any input is the normalised entropy (He et al. 2014,
/// "Practical lessons from predicting clicks on ads at Facebook"); in these terms purchases get `purchase_share` of the
/// whole. The total at the start stays that of the unweighted losses, so that the weights of amounts and of next items keep
/// their meaning.
fn label_weights(purchase_share: f64, rates: &[f64], class_weights: Option<&[f32]>) -> Vec<f32> {
    // The loss at the start, where scores are the log-odds of the data.
    let cross_entropy = |share: f64, p: f64| if share == 0.0 { 0.0 } else { -share * p.ln() };
    let entropy = |rate: f64, weight: f64| {
        let raised = weight * rate / (weight * rate + 1.0 - rate);
        cross_entropy(weight * rate, raised) + cross_entropy(1.0 - rate, 1.0 - raised)
    };
    let class_weight = |label: usize| class_weights.map_or(1.0, |all| f64::from(all[label]));
    let plain: f64 = rates.iter().map(|&rate| entropy(rate, 1.0)).sum();
    let start: Vec<f64> = rates.iter().enumerate().map(|(label, &rate)| entropy(rate, class_weight(label))).collect();
    let total: f64 = start.iter().sum();
    let mut weights = vec![1.0; rates.len()];
    let purchase = start[PURCHASE];
    let others = total - start[PURCHASE];
    if purchase > 0.0 && others > 0.0 && purchase_share > 0.0 {
        weights[PURCHASE] =
            (purchase_share / (1.0 - purchase_share) * others / purchase).clamp(1.0, PURCHASE_WEIGHT_MAX);
    }
    let weighted: f64 = weights.iter().zip(&start).map(|(weight, loss)| weight * loss).sum();
    let shrinkage = if weighted > 0.0 { plain / weighted } else { 1.0 };
    weights.iter().map(|weight| (weight * shrinkage) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::networks::HeadName;
    use crate::model::heads;
    use crate::model::targets::LABELS;
    use tch::nn;

    /// Users of whom some purchased and did nothing else.
    fn users(labelled: usize, purchased: usize) -> UserStatistics {
        let mut positives = [0; BINARY];
        positives[PURCHASE] = purchased;
        UserStatistics { labelled, known: [labelled; BINARY], positives, ..UserStatistics::default() }
    }

    fn objective(change: impl Fn(&mut ModelConfig, &mut TrainConfig), users: &UserStatistics) -> Objective {
        let mut model = ModelConfig::default();
        let mut train = TrainConfig::default();
        change(&mut model, &mut train);
        Objective::new(&model, &train, users, Device::Cpu).unwrap()
    }

    /// Raw scores of the intents and of churn.
    fn binary_raw() -> [f32; BINARY] {
        std::array::from_fn(|label| [0.3, -0.2, 1.0, 0.0, 2.0, -3.0, 0.5][label % 7])
    }

    fn raw() -> RawOutputs {
        let binary = Tensor::from_slice(&binary_raw()).view([1, BINARY as i64]);
        RawOutputs {
            intents: binary.narrow(1, 0, CHURN),
            churn: binary.narrow(1, CHURN, 1),
            amounts: Tensor::from_slice(&[0.7f32, 1.2]).view([1, AMOUNTS as i64]),
        }
    }

    /// Labels of one user: some intents, no churn, two units for 30.
    fn labelled() -> [f32; LABELS.len()] {
        std::array::from_fn(|label| match label {
            _ if label >= BINARY => [2.0, 30.0][label - BINARY],
            _ if label == CHURN as usize => 0.0,
            _ => [1.0, 0.0, 0.0, 1.0, 1.0, 0.0][label % 6],
        })
    }

    fn loss(objective: &Objective, head: HeadName, train: bool) -> f64 {
        let head = heads::build(&nn::VarStore::new(Device::Cpu).root(), head);
        let scaling = Scaling { units: 2.0, spend: 20.0, ..Default::default() };
        let labels = Tensor::from_slice(&labelled()).view([1, LABELS.len() as i64]);
        objective.loss(head.as_ref(), &raw(), &labels, &scaling, train).double_value(&[])
    }

    #[test]
    fn the_loss_is_the_sum_of_its_parts() {
        let softplus = |x: f64| (1.0 + x.exp()).ln();
        let bce = |x: f64, y: f64| softplus(x) - x * y;
        let binary: f64 = binary_raw().iter().zip(labelled()).map(|(&x, y)| bce(x.into(), y.into())).sum();
        let poisson = |m: f64, y: f64| m - y * m.ln();
        let wanted = binary + 0.2 * (poisson(0.7, 1.0) + poisson(1.2, 1.5));
        let users = users(10, 5);
        let got = loss(&objective(|_, _| (), &users), HeadName::Sigmoid, true);
        assert!((got - wanted).abs() < 1e-5, "{got} {wanted}");
        // An untrained chain equals independent sigmoids, whose likelihood is the cross-entropy.
        let crf = loss(&objective(|m, _| m.loss = LossName::Crf, &users), HeadName::Crf, true);
        assert!((crf - wanted).abs() < 1e-5, "{crf} {wanted}");
    }

    #[test]
    fn labels_are_smoothed_in_training_only() {
        let users = users(10, 5);
        let plain = objective(|_, _| (), &users);
        let smoothed = objective(|_, t| t.label_smoothing = 0.2, &users);
        assert_eq!(loss(&plain, HeadName::Sigmoid, false), loss(&smoothed, HeadName::Sigmoid, false));
        assert_ne!(loss(&plain, HeadName::Sigmoid, true), loss(&smoothed, HeadName::Sigmoid, true));
    }

    #[test]
    fn balanced_class_weights_are_the_odds() {
        let users = users(40, 10);
        let mut expected = [1.0; BINARY];
        expected[PURCHASE] = 3.0;
        assert_eq!(balanced(&users), expected);
        let objective = objective(|m, _| m.class_weights = ClassWeights::Balanced, &users);
        assert!(loss(&objective, HeadName::Sigmoid, true).is_finite());
    }

    #[test]
    fn the_loss_is_lowest_at_the_log_odds_of_the_data() {
        // One buyer among ten.
        let users = users(10, 1);
        for (weights, largest) in [(ClassWeights::None, 1.0), (ClassWeights::Balanced, 9.0)] {
            let objective = objective(|m, _| m.class_weights = weights, &users);
            let weight = objective.positive_weight.as_ref().map_or(1.0, |w| w.max().double_value(&[]));
            assert_eq!(weight, largest, "{weights:?}");
            let labels = Tensor::zeros([10, CHURN], (Kind::Float, Device::Cpu));
            let _ = labels.get(3).get(PURCHASE as i64).fill_(1.0);
            let raw =
                Tensor::full([10, CHURN], (1.0f64 / 9.0).ln(), (Kind::Float, Device::Cpu)).set_requires_grad(true);
            let head = heads::build(&nn::VarStore::new(Device::Cpu).root(), HeadName::Sigmoid);
            objective.intents(head.as_ref(), &raw, &labels).backward();
            let slope = raw.grad().narrow(1, PURCHASE as i64, 1).sum(Kind::Float).double_value(&[]);
            assert!(slope.abs() < 1e-6, "{weights:?}: {slope}");
        }
    }

    #[test]
    fn weights_keep_the_total_loss_at_the_base_rates() {
        let mut users = users(100, 2);
        users.positives[..4].copy_from_slice(&[60, 1, 100, 30]);
        let all = [(0.0, ClassWeights::None), (0.5, ClassWeights::None), (0.5, ClassWeights::Balanced)];
        let [plain, labels, both] = all.map(|(purchase_share, class_weights)| {
            let set = |m: &mut ModelConfig| (m.purchase_share, m.class_weights) = (purchase_share, class_weights);
            let objective = objective(|m, _| set(m), &users);
            let mut labels = vec![];
            let mut raw = vec![];
            for (&rate, &positives) in users.base_rates().iter().zip(&users.positives) {
                labels.extend((0..100).map(|user| f32::from(u8::from(user < positives))));
                raw.extend([(rate / (1.0 - rate)).ln().clamp(-40.0, 40.0) as f32; 100]);
            }
            let table = |values: &[f32]| Tensor::from_slice(values).view([BINARY as i64, 100]).transpose(0, 1);
            let labels = table(&labels);
            let raw = table(&raw);
            let head = heads::build(&nn::VarStore::new(Device::Cpu).root(), HeadName::Sigmoid);
            let intents = objective.intents(head.as_ref(), &raw.narrow(1, 0, CHURN), &labels.narrow(1, 0, CHURN));
            intents.double_value(&[])
        });
        assert!((plain / labels - 1.0).abs() < 1e-4 && (plain / both - 1.0).abs() < 1e-4, "{plain} {labels} {both}");
    }

    #[test]
    fn purchases_start_with_their_share_up_to_the_limit() {
        let entropy = |p: f64| -p * p.ln() - (1.0 - p) * (1.0 - p).ln();
        let share = |purchase_share: f64, purchases: f64, class_weights: Option<&[f32]>| {
            let mut rates: [f64; BINARY] = std::array::from_fn(|label| [0.5, 0.1, 0.2, 0.1, 0.01, 0.3][label % 6]);
            rates[PURCHASE] = purchases;
            let weights = label_weights(purchase_share, &rates, class_weights);
            let start: Vec<f64> = rates.iter().zip(&weights).map(|(&p, &w)| f64::from(w) * entropy(p)).collect();
            assert!((start.iter().sum::<f64>() - rates.iter().copied().map(entropy).sum::<f64>()).abs() < 1e-6);
            start[PURCHASE] / start.iter().sum::<f64>()
        };
        assert!((share(0.5, 0.1, None) - 0.5).abs() < 1e-6);
        assert!((share(0.3, 0.1, Some(&[1.0; BINARY])) - 0.3).abs() < 1e-6);
        let plain = share(0.0, 1e-4, None);
        let rare = share(0.5, 1e-4, None);
        assert!(rare > 9.0 * plain && rare < 10.0 * plain, "{plain} {rare}");
        assert_eq!(share(0.01, 0.1, None), share(0.0, 0.1, None), "never less than without a weight");
        assert_eq!(label_weights(0.5, &[0.0; BINARY], None), [1.0; BINARY]);
    }

    #[test]
    fn losses_over_all_intents_leave_the_weight_of_churn() {
        let mut users = users(100, 5);
        users.positives[CHURN as usize] = 30;
        let churn = |set: fn(&mut ModelConfig)| objective(|m, _| set(m), &users).label_weight.double_value(&[CHURN]);
        assert_eq!([churn(|m| m.loss = LossName::Crf), churn(|m| m.loss = LossName::Iou)], [1.0; 2]);
        assert_eq!(churn(|m| m.purchase_share = 0.0), 1.0);
        assert!(churn(|m| m.loss = LossName::Focal) < 0.9, "half belongs to purchases");
    }

    #[test]
    fn unknown_churn_adds_no_loss_and_no_gradient() {
        let (store, scaling) =
            (nn::VarStore::new(Device::Cpu), Scaling { units: 1.0, spend: 1.0, ..Scaling::default() });
        let head = heads::build(&store.root(), HeadName::Sigmoid);
        let objective = objective(|_, _| {}, &users(10, 5));
        let raw = RawOutputs {
            intents: Tensor::zeros([3, CHURN], (Kind::Float, Device::Cpu)),
            churn: Tensor::from_slice(&[0.5f32, -1.0, 2.0]).view([3, 1]).set_requires_grad(true),
            amounts: Tensor::ones([3, AMOUNTS as i64], (Kind::Float, Device::Cpu)),
        };
        let loss = |churned: [f32; 3]| {
            let labels = Tensor::zeros([3, LABELS.len() as i64], (Kind::Float, Device::Cpu));
            labels.narrow(1, CHURN, 1).copy_(&Tensor::from_slice(&churned).view([3, 1]));
            objective.loss(head.as_ref(), &raw, &labels, &scaling, true)
        };
        let unknown = f32::NAN;
        let nothing = loss([unknown; 3]).double_value(&[]);
        let one = loss([unknown, 1.0, unknown]);
        // -ln sigmoid(-1), for the only user whose churn is known.
        assert!((one.double_value(&[]) - nothing - 1.0f64.exp().ln_1p()).abs() < 1e-5);
        one.backward();
        let gradient = Vec::<f32>::try_from(raw.churn.grad().view([-1])).unwrap();
        assert!(gradient[0] == 0.0 && gradient[1] < 0.0 && gradient[2] == 0.0, "{gradient:?}");
    }

    #[test]
    fn every_amount_loss_is_lowest_near_the_truth() {
        use AmountLossName::*;
        for name in [Poisson, Mse, Mae, Rmse, Huber, Tweedie, NegativeBinomial] {
            let objective = objective(|m, _| m.amount_loss = name, &users(10, 5));
            let actual = Tensor::from_slice(&[1.0f32, 1.5]).view([1, 2]);
            let at = |times: f64| objective.amounts(&(&actual * times), &actual).double_value(&[]);
            assert!(at(1.0) < at(0.7) && at(1.0) < at(1.4), "{name:?}");
        }
    }
}
