//! Whichever network a card names, and its weights from a file: exactly those of the network, by torchvision's names.

use tch::{Tensor, nn};

use super::card::ImageCard;
use super::cnn::Cnn;
use super::resnet::ResNet;
use crate::failure::Result;
use crate::model::weights;

#[derive(Debug)]
pub enum ImageNetwork {
    ResNet(ResNet),
    Cnn(Cnn),
}

impl ImageNetwork {
    /// Fresh weights below `path`, without a classifier.
    pub fn new(path: &nn::Path, card: &ImageCard) -> Self {
        match card.architecture.depth() {
            Some(depth) => Self::ResNet(ResNet::new(path, depth, None)),
            None => Self::Cnn(Cnn::new(path, &card.cnn_shape())),
        }
    }

    /// float32 [n, 3, crop, crop], normalised, to float32 [n, width].
    pub fn features(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match self {
            Self::ResNet(network) => network.features(x, train),
            Self::Cnn(network) => network.features(x, train),
        }
    }
}

/// Puts the weights of a safetensors file into a store. Left aside: `num_batches_tracked`, which nothing reads, and the
/// classifier `fc` where the network has none. Everything else must be there, by name and shape, and finite.
pub fn load(store: &mut nn::VarStore, bytes: &[u8]) -> Result<()> {
    let mut tensors = weights::tensors_from_bytes(bytes)?;
    let classifies = store.variables().contains_key("fc.weight");
    tensors.retain(|name, _| !name.ends_with(".num_batches_tracked") && (classifies || !name.starts_with("fc.")));
    weights::from_tensors(&mut [store], tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vision::card::Architecture;
    use crate::model::vision::formula::fill;
    use crate::model::vision::preprocess::Preprocess;
    use tch::Device;

    type Named = Vec<(String, Tensor)>;

    fn fresh(classes: Option<i64>) -> nn::VarStore {
        let store = nn::VarStore::new(Device::Cpu);
        match classes {
            Some(_) => drop(ResNet::new(&store.root(), crate::model::vision::Depth::Eighteen, classes)),
            None => {
                let card = ImageCard::new(Architecture::ResNet18, Preprocess::default());
                drop(ImageNetwork::new(&store.root(), &card));
            }
        }
        store
    }

    /// A file as torchvision writes it, after a change.
    fn file(change: impl Fn(&mut Named)) -> Vec<u8> {
        let store = fresh(Some(10));
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
        load(&mut fresh(None), &bytes).unwrap_err().message
    }

    #[test]
    fn a_whole_file_loads_with_or_without_the_classifier() {
        let bytes = file(|_| {});
        for classes in [None, Some(10)] {
            let mut store = fresh(classes);
            load(&mut store, &bytes).unwrap();
            let filled = fresh(classes);
            fill(&filled);
            for (name, tensor) in store.variables() {
                assert_eq!(tensor, filled.variables()[&name], "{name}");
            }
        }
    }

    #[test]
    fn weights_that_do_not_fit_are_refused_by_name() {
        let name = "layer3.1.conv2.weight";
        let missing = file(|named| named.retain(|(n, _)| n != name));
        let text = load(&mut fresh(None), &missing).unwrap_err().message;
        assert_eq!(text, format!("{name} is missing: expected the shape [256, 256, 3, 3]"));
        let extra = file(|named| named.push(("layer5.0.conv1.weight".into(), Tensor::from(1f32))));
        let text = load(&mut fresh(None), &extra).unwrap_err().message;
        assert_eq!(text, "layer5.0.conv1.weight belongs to no network of the card: expected none, got the shape []");
        let text = replaced(name, |t| t.narrow(0, 0, 9));
        assert_eq!(text, format!("{name}: expected the shape [256, 256, 3, 3], got [9, 256, 3, 3]"));
        let text = replaced("bn1.running_mean", |t| t * f64::NAN);
        assert_eq!(text, "bn1.running_mean holds numbers that are not finite");
    }

    #[test]
    fn a_classifier_of_other_classes_is_refused_only_where_one_is_wanted() {
        let text = load(&mut fresh(Some(11)), &file(|_| {})).unwrap_err().message;
        assert!(text.contains("expected the shape [11"), "{text}");
    }
}
