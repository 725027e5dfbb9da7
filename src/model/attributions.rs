//! Attributes an intent of a user to its inputs, as shares of the network's log-odds: integrated gradients (Sundararajan, Taly, Yan 2017,
//! arXiv 1703.01365, equation 1).
//!
//! The baseline is an average user of the training whose events say nothing: the vectors of all events are zero, and so is every
//! standardised feature.

use tch::{Kind, Tensor};

use super::backbones::PaddedEvents;
use super::blend::logit;
use super::events::EventBatch;
use super::intent::{EmbeddedUsers, IntentNetwork};
use super::targets::CHURN;
use crate::failure::{Failure, Result};

/// Points of the straight path between baseline and user at which gradients are taken, by the midpoint rule.
/// They are doubled until the shares add up within [`TOLERANCE`], up to the last number.
const STEPS: [i64; 4] = [64, 128, 256, 512];

/// Largest rest of the shares, as a share of the difference from the baseline (or of 1, where that is larger).
pub(crate) const TOLERANCE: f64 = 0.02;

/// Points are at the fourth powers of evenly spaced numbers: layer normalisation makes most of the difference close to the baseline,
/// where the vectors of events grow from zero.
const POWER: i32 = 4;

/// Shares of a network's log-odds of one intent of one user.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkAttributions {
    pub(crate) log_odds: f64,
    pub(crate) baseline_log_odds: f64,
    /// Share of each event, oldest first.
    pub(crate) events: Vec<f64>,
    /// Share of the events' contents as a whole, where the network reads their means.
    pub(crate) contents: f64,
    /// Share of each input besides the events, in the order of `Scaling::head_inputs`.
    pub(crate) head_inputs: Vec<f64>,
}

impl NetworkAttributions {
    /// Returns what the shares lack of the difference from the baseline.
    fn rest(&self) -> f64 {
        let shares = self.events.iter().chain(&self.head_inputs).sum::<f64>() + self.contents;
        self.log_odds - self.baseline_log_odds - shares
    }
}

impl IntentNetwork {
    /// Attributes the log-odds of a binary target of the one user of a batch. `head_inputs` is float32 [1, inputs]. At most
    /// `tokens_max` events are in memory at once, those of one point at least.
    pub(crate) fn attributions(
        &self,
        batch: &EventBatch,
        head_inputs: &Tensor,
        target: usize,
        tokens_max: usize,
    ) -> Result<NetworkAttributions> {
        let user = tch::no_grad(|| self.embed(batch))?;
        let whole = tch::no_grad(|| self.log_odds_at(&user, head_inputs, target, &[0.0, 1.0]))?;
        let has_events = batch.lengths.f_int64_value(&[0])? > 0;
        let flat = |of: &Tensor| -> Result<Vec<f64>> {
            Ok(Vec::<f64>::try_from(&of.f_to_device(tch::Device::Cpu)?.f_to_kind(Kind::Double)?.f_view([-1])?)?)
        };
        let mut found = NetworkAttributions::default();
        for steps in STEPS {
            let events = user.events.x.size()[1].max(1) as usize;
            let at_once = (tokens_max / events).clamp(1, STEPS[0] as usize);
            let [x, items, means, inputs] =
                tch::with_grad(|| self.integrate(&user, head_inputs, target, (steps, at_once)))?;
            found = NetworkAttributions {
                baseline_log_odds: whole[0],
                log_odds: whole[1],
                events: if has_events { flat(&(x + items))? } else { Vec::new() },
                contents: flat(&means)?.iter().sum(),
                head_inputs: flat(&inputs)?,
            };
            if found.rest().abs() <= TOLERANCE * (found.log_odds - found.baseline_log_odds).abs().max(1.0) {
                break;
            }
        }
        if found.rest().abs() > TOLERANCE * (found.log_odds - found.baseline_log_odds).abs().max(1.0) {
            tracing::debug!("an explanation of {} leaves {:.3} over", found.log_odds, found.rest());
        }
        Ok(found)
    }

    /// Integrates gradients over the path, `at_once` of its points at a time: shares of event vectors [events], item vectors
    /// [events], content means [..] and head inputs [inputs].
    fn integrate(
        &self,
        user: &EmbeddedUsers,
        head_inputs: &Tensor,
        target: usize,
        (steps, at_once): (i64, usize),
    ) -> Result<[Tensor; 4]> {
        let evenly: Vec<f64> = (0..steps).map(|step| (step as f64 + 0.5) / steps as f64).collect();
        let mut sums: Option<[Tensor; 4]> = None;
        for points in evenly.chunks(at_once) {
            let more = self.gradients(user, head_inputs, target, points)?;
            sums = Some(match sums {
                None => more,
                Some(sums) => std::array::from_fn(|part| &sums[part] + &more[part]),
            });
        }
        let sums = sums.ok_or_else(|| Failure::bug("a path without points"))?;
        let share = |sum: &Tensor, of: &Tensor| -> Result<Tensor> { Ok(sum * of.f_squeeze_dim(0)? / steps as f64) };
        let per_event = |sum: &Tensor, of: &Tensor| -> Result<Tensor> {
            Ok(share(sum, of)?.f_sum_dim_intlist(-1i64, false, Kind::Float)?)
        };
        let [x, items, inputs, means] = sums;
        Ok([
            per_event(&x, &user.events.x)?,
            per_event(&items, &user.items)?,
            match &user.content_means {
                Some(of) => share(&means, of)?,
                None => means,
            },
            share(&inputs, head_inputs)?,
        ])
    }

    /// Sums up the gradients at points of the path, each times the speed there: by event vectors [events, width], item vectors
    /// [events, width], head inputs [inputs] and content means [..] (one zero where there are none).
    fn gradients(
        &self,
        user: &EmbeddedUsers,
        head_inputs: &Tensor,
        target: usize,
        points: &[f64],
    ) -> Result<[Tensor; 4]> {
        let count = points.len() as i64;
        let along = |of: &dyn Fn(f64) -> f64, dims: usize| -> Result<Tensor> {
            let numbers: Vec<f32> = points.iter().map(|&t| of(t) as f32).collect();
            let shape: Vec<i64> = [count].into_iter().chain(vec![1; dims - 1]).collect();
            Ok(Tensor::f_from_slice(&numbers)?.f_view(&shape[..])?.f_to_device(head_inputs.device())?)
        };
        let scale = |of: &Tensor| -> Result<Tensor> {
            let along = along(&|t| t.powi(POWER), of.dim())?;
            Ok((of * along).f_detach()?.f_set_requires_grad(true)?)
        };
        let means = user.content_means.as_ref().map(scale).transpose()?;
        let point = [scale(&user.events.x)?, scale(&user.items)?, scale(head_inputs)?];
        let [x, items, inputs] = &point;
        let at = EmbeddedUsers {
            items: items.shallow_clone(),
            events: repeated(&user.events, x, count)?,
            content_means: means.as_ref().map(Tensor::shallow_clone),
        };
        let sum = self.log_odds(&at, inputs, target)?.f_sum(Kind::Float)?;
        let wanted: Vec<&Tensor> = point.iter().chain(&means).collect();
        // Gradients of these alone: those of the weights would be shared by all threads.
        let gradients = Tensor::f_run_backward(&[&sum], &wanted, false, false)?;
        let walked = |gradient: &Tensor| -> Result<Tensor> {
            let speed = along(&|t| f64::from(POWER) * t.powi(POWER - 1), gradient.dim())?;
            Ok((gradient * speed).f_sum_dim_intlist(0i64, false, Kind::Float)?)
        };
        Ok([
            walked(&gradients[0])?,
            walked(&gradients[1])?,
            walked(&gradients[2])?,
            match gradients.get(3) {
                Some(gradient) => walked(gradient)?,
                None => Tensor::f_zeros([1], (Kind::Float, head_inputs.device()))?,
            },
        ])
    }

    /// Returns the log-odds at points of the path, of which 0 is the baseline and 1 the user.
    fn log_odds_at(
        &self,
        user: &EmbeddedUsers,
        head_inputs: &Tensor,
        target: usize,
        points: &[f64],
    ) -> Result<Vec<f64>> {
        let mut found = Vec::new();
        for &point in points {
            let at = EmbeddedUsers {
                items: &user.items * point,
                events: repeated(&user.events, &(&user.events.x * point), 1)?,
                content_means: user.content_means.as_ref().map(|means| means * point),
            };
            // As the blend reads it: from the probability.
            let odds = self.log_odds(&at, &(head_inputs * point), target)?.f_double_value(&[0])?;
            found.push(logit(super::blend::sigmoid(odds)));
        }
        Ok(found)
    }

    /// Returns the log-odds of a binary target, float32 [users].
    fn log_odds(&self, users: &EmbeddedUsers, head_inputs: &Tensor, target: usize) -> Result<Tensor> {
        let raw = self.outputs(&self.encode_embedded(users, false)?, head_inputs, false)?;
        match target as i64 {
            CHURN => Ok(raw.churn.f_squeeze_dim(-1)?),
            intent => Ok(self.head.probabilities(&raw.intents).f_select(1, intent)?.f_logit(1e-7)?),
        }
    }
}

/// Repeats one user's events, with vectors for each repetition.
fn repeated(events: &PaddedEvents, x: &Tensor, times: i64) -> Result<PaddedEvents> {
    Ok(PaddedEvents {
        x: x.shallow_clone(),
        lengths: events.lengths.f_expand([times], false)?,
        present: events.present.f_expand([times, x.size()[1]], false)?,
        has_padding: events.has_padding,
    })
}

#[cfg(test)]
mod tests {
    use super::super::contents::Contents;
    use super::super::inputs::EventInput;
    use super::super::shape::IntentShape;
    use super::super::targets::{BINARY, PURCHASE};
    use super::*;
    use crate::config::networks::{BackboneName, FusionName, HeadName};
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;
    use tch::{Device, nn};

    fn event(rng: &mut ChaCha8Rng) -> EventInput {
        EventInput {
            event_type: rng.random_range(1..=8),
            item: rng.random_range(1..=50),
            category: rng.random_range(1..=9),
            contents: [0, rng.random_range(0..=5), 0],
            reals: std::array::from_fn(|_| rng.random_range(-2.0..2.0)),
        }
    }

    /// Five image vectors of dimension three.
    fn contents(rng: &mut ChaCha8Rng) -> Contents {
        let mut contents = Contents::new([0, 3, 0]);
        for key in 1..=5 {
            assert!(contents.insert(1, key, &[0, 1, 2].map(|_| rng.random_range(-1.0..1.0))));
        }
        contents
    }

    /// A network whose weights are large enough that its log-odds are far from the baseline's.
    fn network(backbone: BackboneName, head: HeadName) -> (nn::VarStore, IntentNetwork) {
        tch::manual_seed(4);
        let shape = IntentShape {
            width: 16,
            layers: 2,
            item_buckets: 50,
            events_max: 40,
            content_dims: [0, 3, 0],
            fusion: FusionName::Multilevel,
            ..IntentShape::tiny(backbone, head)
        };
        let store = nn::VarStore::new(Device::Cpu);
        let network = IntentNetwork::new(&store.root(), &shape);
        tch::no_grad(|| {
            store.trainable_variables().iter_mut().for_each(|weights| drop(weights.f_mul_scalar_(1.2).unwrap()))
        });
        (store, network)
    }

    #[test]
    fn shares_add_up_to_the_difference_from_the_baseline() {
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let contents = contents(&mut rng);
        for backbone in BackboneName::ALL {
            for head in HeadName::ALL {
                let (_store, network) = network(backbone, head);
                for length in [0, 1, 25] {
                    let events: Vec<EventInput> = (0..length).map(|_| event(&mut rng)).collect();
                    let batch = network.batch(&[&events], &contents, Device::Cpu).unwrap();
                    let inputs = Tensor::randn([1, 2 * network.shape.features as i64 + 2], (Kind::Float, Device::Cpu));
                    for target in [0, PURCHASE, BINARY - 1] {
                        let found = network.attributions(&batch, &inputs, target, 300).unwrap();
                        assert_eq!((found.events.len(), found.head_inputs.len()), (length, inputs.size()[1] as usize));
                        let sum: f64 = found.events.iter().chain(&found.head_inputs).sum::<f64>() + found.contents;
                        let difference = found.log_odds - found.baseline_log_odds;
                        assert!(
                            (sum - difference).abs() < TOLERANCE * difference.abs().max(1.0),
                            "{backbone:?}, {head:?}, {length} events, target {target}: {sum} instead of {difference}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn weights_get_no_gradients() {
        let (store, network) = network(BackboneName::Transformer, HeadName::Sigmoid);
        let mut rng = ChaCha8Rng::seed_from_u64(9);
        let events = [event(&mut rng)];
        let batch = network.batch(&[&events], &contents(&mut rng), Device::Cpu).unwrap();
        let inputs = Tensor::zeros([1, 2 * network.shape.features as i64 + 2], (Kind::Float, Device::Cpu));
        network.attributions(&batch, &inputs, PURCHASE, 300).unwrap();
        assert!(store.trainable_variables().iter().all(|weights| !weights.grad().defined()));
    }
}
