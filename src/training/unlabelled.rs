//! What users without labels teach beside the labelled ones (semi-supervised learning).
//!
//! The network's own scores of a user, without dropout, are the teacher; the same user's changed history is the pupil.
//! - `consistency`: the pupil's probabilities lie near the teacher's (squared distance; Laine and Aila 2017,
//!   arXiv:1610.02242; changed inputs as in Xie et al. 2020, arXiv:1904.12848).
//! - `pseudo_labels`: what the teacher is surest of is taken for true (Lee 2013; weak and strong views as in FixMatch, Sohn
//!   et al. 2020, arXiv:2001.07685). Intents are rare, and one threshold would find negatives only, so each class gives its
//!   surest half, in the share in which the labelled users show it (class-balanced, Zou et al. 2018, arXiv:1810.07911).

use tch::{Kind, Tensor};

use crate::config::networks::Unlabelled;

/// The surest share of each class that becomes pseudo-labels.
const SUREST_SHARE: f64 = 0.5;

/// Mean loss of the pupil's probabilities against the teacher's, float32 [users, outputs] each. `base_rates`: of each
/// output, the share of positives among labelled users.
pub fn loss(kind: Unlabelled, pupil: &Tensor, teacher: &Tensor, base_rates: &[f64]) -> Tensor {
    let teacher = teacher.detach();
    match kind {
        Unlabelled::None => pupil.sum(Kind::Float) * 0.0,
        Unlabelled::Consistency => (pupil - teacher).square().mean(Kind::Float),
        Unlabelled::PseudoLabels => pseudo_labels(pupil, &teacher, base_rates),
    }
}

fn pseudo_labels(pupil: &Tensor, teacher: &Tensor, base_rates: &[f64]) -> Tensor {
    let users = teacher.size()[0];
    let pupil = pupil.clamp(1e-6, 1.0 - 1e-6);
    let (mut sum, mut labels) = (Tensor::zeros([1], (Kind::Float, pupil.device())), 0);
    for (output, &rate) in base_rates.iter().enumerate() {
        let order = teacher.select(1, output as i64).argsort(0, true);
        let p = pupil.select(1, output as i64).index_select(0, &order);
        let surest = |share: f64| ((users as f64 * share * SUREST_SHARE).floor() as i64).min(users);
        let (positive, negative) = (surest(rate), surest(1.0 - rate));
        sum -= p.narrow(0, 0, positive).log().sum(Kind::Float);
        sum -= (p.narrow(0, users - negative, negative) * -1.0 + 1.0).log().sum(Kind::Float);
        labels += positive + negative;
    }
    sum.squeeze() / labels.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(p: &[f32]) -> Tensor {
        Tensor::from_slice(p).unsqueeze(1)
    }

    #[test]
    fn consistency_is_the_squared_distance() {
        let far = loss(Unlabelled::Consistency, &column(&[0.5, 0.1]), &column(&[0.1, 0.1]), &[0.5]);
        assert!((far.double_value(&[]) - 0.08).abs() < 1e-6);
    }

    #[test]
    fn each_class_gives_its_surest_half_in_its_share() {
        // Eight users, a quarter positive: one pseudo-positive (the surest), three pseudo-negatives.
        let teacher = column(&[0.3, 0.9, 0.2, 0.25, 0.01, 0.02, 0.03, 0.2]);
        let pupil = column(&[0.5, 0.8, 0.5, 0.5, 0.1, 0.2, 0.3, 0.5]);
        let expected = -(0.8f64.ln() + 0.9f64.ln() + 0.8f64.ln() + 0.7f64.ln()) / 4.0;
        let got = loss(Unlabelled::PseudoLabels, &pupil, &teacher, &[0.25]).double_value(&[]);
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
    }

    #[test]
    fn the_teacher_learns_nothing_and_too_few_users_say_nothing() {
        let p = column(&[0.4, 0.6]).set_requires_grad(true);
        let taught = loss(Unlabelled::Consistency, &column(&[0.1, 0.1]).set_requires_grad(true), &p, &[0.5]);
        taught.backward();
        assert!(!p.grad().defined());
        let none = loss(Unlabelled::PseudoLabels, &column(&[0.4]), &column(&[0.4]), &[0.1]);
        assert_eq!(none.double_value(&[]), 0.0);
    }
}
