//! Builds the network that a card names and loads its weights from a file with torchvision's names.

use tch::{Tensor, nn};

use super::cnn::Cnn;
use super::encoder_card::ImageEncoderCard;
use super::resnet::ResNet;
use crate::failure::Result;
use crate::model::weights;

#[derive(Debug)]
pub enum ImageNetwork {
    ResNet(ResNet),
    Cnn(Cnn),
}

impl ImageNetwork {
    /// Creates a network with random weights below `path`, without a classifier.
    pub fn new(path: &nn::Path, card: &ImageEncoderCard) -> Self {
        match card.architecture.depth() {
            Some(depth) => Self::ResNet(ResNet::new(path, depth)),
            None => Self::Cnn(Cnn::new(path, &card.cnn_shape())),
        }
    }

    /// Maps normalised pixels, float32 [n, 3, crop, crop], to vectors, float32 [n, width].
    pub(crate) fn features(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match self {
            Self::ResNet(network) => network.features(x, train),
            Self::Cnn(network) => network.features(x, train),
        }
    }
}

/// Loads a safetensors file into a store. It ignores `num_batches_tracked` and the classifier `fc`, which nothing reads. All
/// other tensors must match the store by name and shape, and be finite.
pub(crate) fn load_weights(store: &mut nn::VarStore, bytes: &[u8]) -> Result<()> {
    let mut tensors = weights::tensors_from_bytes(bytes)?;
    tensors.retain(|name, _| !name.ends_with(".num_batches_tracked") && !name.starts_with("fc."));
    weights::from_tensors(&mut [store], tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vision::encoder_card::Architecture;
    use crate::model::vision::fixtures::fill;
    use crate::model::vision::preprocess::Preprocess;
    use tch::Device;

    type Named = Vec<(String, Tensor)>;

    fn fresh() -> nn::VarStore {
        let store = nn::VarStore::new(Device::Cpu);
        let card = ImageEncoderCard::new(Architecture::ResNet18, Preprocess::default());
        ImageNetwork::new(&store.root(), &card);
        store
    }

    /// Makes a file as torchvision writes it, then applies a change.
    fn file(change: impl Fn(&mut Named)) -> Vec<u8> {
        let store = fresh();
        nn::linear(store.root() / "fc", 512, 10, Default::default());
        fill(&store);
        let mut named: Named = store.variables().into_iter().collect();
        named.push(("bn1.num_batches_tracked".into(), Tensor::from(7i64)));
        change(&mut named);
        weights::tensors_to_bytes(&named).unwrap()
    }

    fn replaced(name: &str, by: impl Fn(&Tensor) -> Tensor) -> String {
        let bytes = file(|named| {
            let entry = named.iter_mut().find(|(n, _)| n == name).unwrap();
            entry.1 = tch::no_grad(|| by(&entry.1));
        });
        load_weights(&mut fresh(), &bytes).unwrap_err().message
    }

    #[test]
    fn a_file_loads_without_its_classifier() {
        let bytes = file(|_| {});
        let mut store = fresh();
        load_weights(&mut store, &bytes).unwrap();
        let filled = fresh();
        fill(&filled);
        for (name, tensor) in store.variables() {
            assert_eq!(tensor, filled.variables()[&name], "{name}");
        }
    }

    #[test]
    fn weights_that_do_not_fit_are_refused_by_name() {
        let name = "layer3.1.conv2.weight";
        let missing = file(|named| named.retain(|(n, _)| n != name));
        let text = load_weights(&mut fresh(), &missing).unwrap_err().message;
        assert_eq!(text, format!("{name} is missing: expected the shape [256, 256, 3, 3]"));
        let extra = file(|named| named.push(("layer5.0.conv1.weight".into(), Tensor::from(1f32))));
        let text = load_weights(&mut fresh(), &extra).unwrap_err().message;
        assert_eq!(text, "layer5.0.conv1.weight belongs to no network of the card: expected none, got the shape []");
        let text = replaced(name, |t| t.narrow(0, 0, 9));
        assert_eq!(text, format!("{name}: expected the shape [256, 256, 3, 3], got [9, 256, 3, 3]"));
        let text = replaced("bn1.running_mean", |t| t * f64::NAN);
        assert_eq!(text, "bn1.running_mean holds numbers that are not finite");
    }
}
