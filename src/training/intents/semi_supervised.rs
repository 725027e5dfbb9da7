//! Semi-supervised learning: a loss for users without labels.
//!
//! The teacher is the network's own score of a user, without dropout; the student scores the same user's augmented history.
//! - `consistency`: the student's probabilities should be close to the teacher's (squared distance; Laine and Aila 2017,
//!   arXiv:1610.02242; augmented inputs as in Xie et al. 2020, arXiv:1904.12848).
//! - `pseudo_labels`: the teacher's most confident scores become labels (Lee 2013; weak and strong views as in FixMatch,
//!   Sohn et al. 2020, arXiv:2001.07685). Intents are rare, so one threshold would find only negatives. Each class gives its
//!   most confident half, in the proportion of the labelled users (class-balanced, Zou et al. 2018, arXiv:1810.07911).

use tch::{Kind, Tensor};

use crate::config::networks::Unlabelled;

/// The most confident share of each class that becomes pseudo-labels.
const CONFIDENT_SHARE: f64 = 0.5;

/// Mean loss of the student's probabilities against the teacher's, float32 [users, outputs] each. `base_rates` has the share
/// of positives of each output among the labelled users.
pub(crate) fn loss(method: Unlabelled, student: &Tensor, teacher: &Tensor, base_rates: &[f64]) -> Tensor {
    let fixed = teacher.detach();
    match method {
        Unlabelled::None => student.sum(Kind::Float) * 0.0,
        Unlabelled::Consistency => (student - fixed).square().mean(Kind::Float),
        Unlabelled::PseudoLabels => pseudo_labels(student, &fixed, base_rates),
    }
}

fn pseudo_labels(student: &Tensor, teacher: &Tensor, base_rates: &[f64]) -> Tensor {
    let users = teacher.size()[0];
    let probabilities = student.clamp(1e-6, 1.0 - 1e-6);
    let mut sum = Tensor::zeros([1], (Kind::Float, probabilities.device()));
    let mut labels = 0;
    for (output, &rate) in base_rates.iter().enumerate() {
        let order = teacher.select(1, output as i64).argsort(0, true);
        let p = probabilities.select(1, output as i64).index_select(0, &order);
        let confident = |share: f64| ((users as f64 * share * CONFIDENT_SHARE).floor() as i64).min(users);
        let positive = confident(rate);
        let negative = confident(1.0 - rate);
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
    fn each_class_gives_its_most_confident_half() {
        // Eight users, a quarter positive: one pseudo-positive (the most confident), three pseudo-negatives.
        let teacher = column(&[0.3, 0.9, 0.2, 0.25, 0.01, 0.02, 0.03, 0.2]);
        let student = column(&[0.5, 0.8, 0.5, 0.5, 0.1, 0.2, 0.3, 0.5]);
        let expected = -(0.8f64.ln() + 0.9f64.ln() + 0.8f64.ln() + 0.7f64.ln()) / 4.0;
        let got = loss(Unlabelled::PseudoLabels, &student, &teacher, &[0.25]).double_value(&[]);
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
    }

    #[test]
    fn the_teacher_gets_no_gradient_and_few_users_no_loss() {
        let p = column(&[0.4, 0.6]).set_requires_grad(true);
        let student_loss = loss(Unlabelled::Consistency, &column(&[0.1, 0.1]).set_requires_grad(true), &p, &[0.5]);
        student_loss.backward();
        assert!(!p.grad().defined());
        let none = loss(Unlabelled::PseudoLabels, &column(&[0.4]), &column(&[0.4]), &[0.1]);
        assert_eq!(none.double_value(&[]), 0.0);
    }
}
