//! Intents in a chain: a linear-chain conditional random field (Lafferty et al. 2001) with one binary label per position.
//!
//! A label vector y of a user has the score Σ raw_i y_i + Σ pair_i[y_i, y_{i+1}]; its probability is the softmax over all
//! label vectors. So the data can make a cart without a view, or a review without a purchase, improbable. Marginals come from
//! forward-backward, the best vector from Viterbi (Rabiner 1989, section III), both in logarithms.

use tch::{Kind, Tensor, nn};

use super::intent_head::IntentHead;

#[derive(Debug)]
pub(crate) struct Crf {
    /// Score of each pair of neighbouring labels: float [length - 1, 2, 2], by the first label, then the second.
    pairs: Tensor,
}

impl Crf {
    /// Creates a chain of `length` labels, at least one, with zero pair scores below `path`.
    pub(crate) fn new(path: &nn::Path, length: i64) -> Self {
        Self { pairs: path.zeros("pairs", &[length - 1, 2, 2]) }
    }

    fn length(&self) -> i64 {
        self.pairs.size()[0] + 1
    }

    /// Returns the scores of both labels at a position, float [users, 2]: zero for 0, the raw score for 1.
    fn label_scores(&self, raw: &Tensor, position: i64) -> Tensor {
        let one = raw.select(1, position);
        Tensor::stack(&[one.zeros_like(), one], 1)
    }

    /// Returns the log of the summed weights of all prefixes that end in each label: float [users, 2] per position.
    fn forward(&self, raw: &Tensor) -> Vec<Tensor> {
        let mut prefixes = vec![self.label_scores(raw, 0)];
        for i in 1..self.length() {
            let joined = prefixes[i as usize - 1].unsqueeze(2) + self.pairs.get(i - 1);
            prefixes.push(joined.logsumexp(1i64, false) + self.label_scores(raw, i));
        }
        prefixes
    }

    /// Returns the log of the summed weights of all suffixes that follow each label: float [users, 2] per position.
    fn backward(&self, raw: &Tensor) -> Vec<Tensor> {
        let mut suffixes = vec![self.label_scores(raw, 0).zeros_like()];
        for i in (1..self.length()).rev() {
            let next = self.label_scores(raw, i) + &suffixes[suffixes.len() - 1];
            suffixes.push((next.unsqueeze(1) + self.pairs.get(i - 1)).logsumexp(2i64, false));
        }
        suffixes.reverse();
        suffixes
    }

    /// Returns the log of the summed weights of all label vectors, float [users].
    fn partition(&self, prefixes: &[Tensor]) -> Tensor {
        prefixes[prefixes.len() - 1].logsumexp(1i64, false)
    }

    /// Returns the score of label vectors, float [users]; the expected score for smoothed labels.
    fn score(&self, raw: &Tensor, labels: &Tensor) -> Tensor {
        let label_sum = (raw * labels).sum_dim_intlist(1i64, false, None::<Kind>);
        let both = Tensor::stack(&[1.0 - labels, labels.shallow_clone()], 2);
        let first = both.narrow(1, 0, self.length() - 1).unsqueeze(3);
        let second = both.narrow(1, 1, self.length() - 1).unsqueeze(2);
        label_sum + (first * second * &self.pairs).sum_dim_intlist([1i64, 2, 3].as_slice(), false, None::<Kind>)
    }
}

impl IntentHead for Crf {
    fn probabilities(&self, raw: &Tensor) -> Tensor {
        let prefixes = self.forward(raw);
        let suffixes = self.backward(raw);
        let total = self.partition(&prefixes);
        let marginals = prefixes.iter().zip(&suffixes).map(|(p, s)| (p.select(1, 1) + s.select(1, 1) - &total).exp());
        // Rounding can give 1 + 1e-7.
        Tensor::stack(&marginals.collect::<Vec<_>>(), 1).clamp_max(1.0)
    }

    fn decode(&self, raw: &Tensor) -> Tensor {
        let mut best = self.label_scores(raw, 0);
        let mut back_pointers = Vec::new();
        for i in 1..self.length() {
            let (score, previous) = (best.unsqueeze(2) + self.pairs.get(i - 1)).max_dim(1, false);
            best = score + self.label_scores(raw, i);
            back_pointers.push(previous);
        }
        let mut label = best.argmax(1, true);
        let mut labels = vec![label.shallow_clone()];
        for previous in back_pointers.iter().rev() {
            label = previous.gather(1, &label, false);
            labels.push(label.shallow_clone());
        }
        labels.reverse();
        Tensor::cat(&labels, 1).to_kind(raw.kind())
    }

    fn negative_log_likelihood(&self, raw: &Tensor, labels: &Tensor) -> Tensor {
        self.partition(&self.forward(raw)) - self.score(raw, labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::targets::INTENTS;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use tch::Device;

    const N: usize = INTENTS.len();
    const LENGTH: i64 = N as i64;

    /// Returns a chain with random pair scores, those scores, and the raw scores of one user.
    fn random(seed: u64) -> (Crf, Vec<f64>, Vec<f64>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut draw = |n: usize| -> Vec<f64> { (0..n).map(|_| rng.random_range(-3.0..3.0)).collect() };
        let (pairs, raw) = (draw(4 * (N - 1)), draw(N));
        let crf = Crf { pairs: Tensor::from_slice(&pairs).view([LENGTH - 1, 2, 2]) };
        (crf, pairs, raw)
    }

    fn vectors() -> impl Iterator<Item = [usize; N]> {
        (0..1usize << N).map(|bits| std::array::from_fn(|i| (bits >> i) & 1))
    }

    fn score(raw: &[f64], pairs: &[f64], y: &[usize; N]) -> f64 {
        let label_sum: f64 = raw.iter().zip(y).map(|(r, &y)| r * y as f64).sum();
        label_sum + (0..N - 1).map(|i| pairs[i * 4 + y[i] * 2 + y[i + 1]]).sum::<f64>()
    }

    fn values(tensor: &Tensor) -> Vec<f64> {
        Vec::<f64>::try_from(&tensor.contiguous().view([-1])).unwrap()
    }

    /// Returns the log of the summed weights of all label vectors, by enumeration.
    fn partition(raw: &[f64], pairs: &[f64]) -> f64 {
        vectors().map(|y| score(raw, pairs, &y).exp()).sum::<f64>().ln()
    }

    #[test]
    fn marginals_equal_sums_over_all_label_vectors() {
        for seed in 0..20 {
            let (crf, pairs, raw) = random(seed);
            let got = values(&crf.probabilities(&Tensor::from_slice(&raw).view([1, LENGTH])));
            let all = partition(&raw, &pairs);
            for i in 0..N {
                let with: f64 = vectors().filter(|y| y[i] == 1).map(|y| (score(&raw, &pairs, &y) - all).exp()).sum();
                assert!((got[i] - with).abs() < 1e-12, "seed {seed}, intent {i}: {} and {with}", got[i]);
            }
        }
    }

    #[test]
    fn viterbi_finds_the_best_of_all_label_vectors() {
        // Many users in one batch: the back-pointers of one user must not lead to another.
        let (crf, pairs, _) = random(99);
        let users: Vec<Vec<f64>> = (0..40).map(|seed| random(seed).2).collect();
        let raw = Tensor::from_slice(&users.concat()).view([-1, LENGTH]);
        let got = values(&crf.decode(&raw));
        for (u, raw) in users.iter().enumerate() {
            let best = vectors().max_by(|a, b| score(raw, &pairs, a).total_cmp(&score(raw, &pairs, b))).unwrap();
            let best: Vec<f64> = best.iter().map(|&y| y as f64).collect();
            assert_eq!(got[u * N..(u + 1) * N], best, "user {u}");
        }
    }

    #[test]
    fn likelihoods_of_all_label_vectors_sum_to_one() {
        let (crf, pairs, raw) = random(5);
        let one = Tensor::from_slice(&raw).view([1, LENGTH]);
        let all = partition(&raw, &pairs);
        let mut mass = 0.0;
        for y in vectors() {
            let labels = Tensor::from_slice(&y.map(|l| l as f64)).view([1, LENGTH]);
            let got = values(&crf.negative_log_likelihood(&one, &labels))[0];
            assert!((got - (all - score(&raw, &pairs, &y))).abs() < 1e-12);
            mass += (-got).exp();
        }
        assert!((mass - 1.0).abs() < 1e-12, "{mass}");
    }

    #[test]
    fn the_likelihood_of_smoothed_labels_is_an_expectation() {
        let (crf, pairs, raw) = random(8);
        let q: [f64; N] = std::array::from_fn(|i| [0.9, 0.2, 0.5, 0.05, 0.7, 1.0][i % 6]);
        let chance = |y: &[usize; N]| -> f64 { (0..N).map(|i| if y[i] == 1 { q[i] } else { 1.0 - q[i] }).product() };
        let wanted = partition(&raw, &pairs) - vectors().map(|y| chance(&y) * score(&raw, &pairs, &y)).sum::<f64>();
        let got = crf.negative_log_likelihood(
            &Tensor::from_slice(&raw).view([1, LENGTH]),
            &Tensor::from_slice(&q).view([1, LENGTH]),
        );
        assert!((values(&got)[0] - wanted).abs() < 1e-12);
    }

    #[test]
    fn likelihood_gradients_equal_finite_differences() {
        let (crf, pairs, raw) = random(13);
        let y: [usize; N] = std::array::from_fn(|i| [1, 0, 1, 1, 0, 0][i % 6]);
        let labels = Tensor::from_slice(&y.map(|l| l as f64)).view([1, LENGTH]);
        let crf = Crf { pairs: crf.pairs.set_requires_grad(true) };
        let leaf = Tensor::from_slice(&raw).set_requires_grad(true);
        crf.negative_log_likelihood(&leaf.view([1, LENGTH]), &labels).sum(Kind::Double).backward();
        let loss = |raw: &[f64], pairs: &[f64]| partition(raw, pairs) - score(raw, pairs, &y);
        let step = 1e-5;
        let moved = |values: &[f64], at: usize, by: f64| {
            let mut values = values.to_vec();
            values[at] += by;
            values
        };
        for (i, got) in values(&leaf.grad()).into_iter().enumerate() {
            let slope = (loss(&moved(&raw, i, step), &pairs) - loss(&moved(&raw, i, -step), &pairs)) / (2.0 * step);
            assert!((got - slope).abs() < 1e-8, "raw {i}: {got} and {slope}");
        }
        for (i, got) in values(&crf.pairs.grad()).into_iter().enumerate() {
            let slope = (loss(&raw, &moved(&pairs, i, step)) - loss(&raw, &moved(&pairs, i, -step))) / (2.0 * step);
            assert!((got - slope).abs() < 1e-8, "pair {i}: {got} and {slope}");
        }
    }

    #[test]
    fn an_untrained_chain_is_independent_sigmoids() {
        let store = nn::VarStore::new(Device::Cpu);
        let crf = Crf::new(&store.root(), LENGTH);
        let raw = (Tensor::arange(LENGTH, (Kind::Float, Device::Cpu)) - 2.0).view([1, LENGTH]);
        let difference = (crf.probabilities(&raw) - raw.sigmoid()).abs().max().double_value(&[]);
        assert!(difference < 1e-6, "{difference}");
    }
}
