//! ResNet 18, 34 and 50 (He et al. 2016) with torchvision's tensor names, so that its weights load. ResNet 50 has the
//! stride in the middle convolution of a block, as in torchvision (version 1.5).

use tch::{Tensor, nn};

use super::layers::{Convolution, ConvolutionNorm};
use crate::failure::Result;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ResNetDepth {
    Eighteen,
    ThirtyFour,
    Fifty,
}

impl ResNetDepth {
    fn blocks(self) -> [usize; 4] {
        match self {
            Self::Eighteen => [2, 2, 2, 2],
            Self::ThirtyFour | Self::Fifty => [3, 4, 6, 3],
        }
    }

    /// The width of a block's output divided by that of its inner layers.
    fn expansion(self) -> i64 {
        match self {
            Self::Eighteen | Self::ThirtyFour => 1,
            Self::Fifty => 4,
        }
    }

    /// The length of a vector.
    pub(crate) fn width(self) -> i64 {
        512 * self.expansion()
    }
}

/// Convolutions with ReLU between them, plus a shortcut, then ReLU.
#[derive(Debug)]
struct Block {
    layers: Vec<ConvolutionNorm>,
    /// `None` if input and output have the same shape.
    shortcut: Option<ConvolutionNorm>,
}

impl Block {
    fn new(path: nn::Path, depth: ResNetDepth, inputs: i64, inner: i64, stride: i64) -> Self {
        let outputs = inner * depth.expansion();
        // Inputs, outputs, kernel and stride of each layer.
        let sizes = match depth.expansion() {
            1 => vec![(inputs, inner, 3, stride), (inner, outputs, 3, 1)],
            _ => vec![(inputs, inner, 1, 1), (inner, inner, 3, stride), (inner, outputs, 1, 1)],
        };
        let layer = |(i, (inputs, outputs, kernel, stride))| {
            let convolution = &path / format!("conv{}", i + 1);
            let norm = &path / format!("bn{}", i + 1);
            ConvolutionNorm::new(convolution, norm, Convolution { inputs, outputs, kernel, stride })
        };
        let layers = sizes.into_iter().enumerate().map(layer).collect();
        let downsample = &path / "downsample";
        let shortcut = (stride != 1 || inputs != outputs).then(|| {
            ConvolutionNorm::new(&downsample / 0, &downsample / 1, Convolution { inputs, outputs, kernel: 1, stride })
        });
        Self { layers, shortcut }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let mut y = self.layers[0].forward(x, train)?;
        for layer in &self.layers[1..] {
            y = layer.forward(&y.f_relu_()?, train)?;
        }
        let residual = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x, train)?,
            None => x.shallow_clone(),
        };
        Ok(y.f_add_(&residual)?.f_relu_()?)
    }
}

#[derive(Debug)]
pub struct ResNet {
    stem: ConvolutionNorm,
    blocks: Vec<Block>,
}

impl ResNet {
    /// Creates random weights below `path`, without torchvision's classifier `fc`.
    pub(crate) fn new(path: &nn::Path, depth: ResNetDepth) -> Self {
        let stem = Convolution { inputs: 3, outputs: 64, kernel: 7, stride: 2 };
        let mut blocks = Vec::new();
        let mut inputs = stem.outputs;
        for (stage, &count) in depth.blocks().iter().enumerate() {
            let inner = 64 << stage;
            for i in 0..count {
                let stride = if stage > 0 && i == 0 { 2 } else { 1 };
                blocks.push(Block::new(path / format!("layer{}", stage + 1) / i, depth, inputs, inner, stride));
                inputs = inner * depth.expansion();
            }
        }
        Self { stem: ConvolutionNorm::new(path / "conv1", path / "bn1", stem), blocks }
    }

    /// Returns the last block's mean over the picture: float32 [n, 3, h, w] to [n, 512 or 2048].
    pub(crate) fn features(&self, pixels: &Tensor, train: bool) -> Result<Tensor> {
        let stem = self.stem.forward(pixels, train)?.f_relu_()?;
        let mut x = stem.f_max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false)?;
        for block in &self.blocks {
            x = block.forward(&x, train)?;
        }
        Ok(x.f_adaptive_avg_pool2d([1, 1])?.f_flatten(1, -1)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::vision::fixtures::{expected, fill, input, largest_difference};
    use tch::Device;

    const ALL: [(&str, ResNetDepth); 3] =
        [("resnet18", ResNetDepth::Eighteen), ("resnet34", ResNetDepth::ThirtyFour), ("resnet50", ResNetDepth::Fifty)];

    /// Returns a network and torchvision's classifier of ten classes.
    fn network(depth: ResNetDepth) -> (nn::VarStore, ResNet, nn::Linear) {
        let store = nn::VarStore::new(Device::Cpu);
        let network = ResNet::new(&store.root(), depth);
        let classifier = nn::linear(store.root() / "fc", depth.width(), 10, Default::default());
        fill(&store);
        (store, network, classifier)
    }

    #[test]
    fn all_depths_agree_with_torchvision() {
        let (expected, x) = (expected("networks.safetensors"), input([2, 3, 96, 80]));
        for (name, depth) in ALL {
            let (store, network, classifier) = network(depth);
            assert_eq!(store.variables().len() as i64, expected[&format!("{name}.tensors")].int64_value(&[0]));
            let _guard = tch::no_grad_guard();
            let features = network.features(&x, false).unwrap();
            assert_eq!(features.size(), [2, depth.width()]);
            let logits = features.linear(&classifier.ws, classifier.bs.as_ref());
            let features = largest_difference(&features, &expected[&format!("{name}.features")]);
            let logits = largest_difference(&logits, &expected[&format!("{name}.logits")]);
            println!("{name}: features differ by {features:.1e}, logits by {logits:.1e}");
            assert!(features < 1e-4 && logits < 1e-4, "{name}: {features} {logits}");
        }
    }

    #[test]
    fn training_agrees_with_torchvision() {
        let expected = expected("networks.safetensors");
        let (store, network, _) = network(ResNetDepth::Eighteen);
        let features = network.features(&input([2, 3, 96, 80]), true).unwrap();
        features.square().mean(tch::Kind::Float).backward();
        let variables = store.variables();
        let weight = &variables["bn1.weight"];
        let pairs = [
            ("features", features.detach()),
            ("bn1.running_mean", variables["bn1.running_mean"].shallow_clone()),
            ("bn1.running_var", variables["bn1.running_var"].shallow_clone()),
            ("bn1.weight.grad", weight.grad()),
        ];
        for (name, got) in pairs {
            let difference = largest_difference(&got, &expected[&format!("resnet18.train.{name}")]);
            println!("resnet18 in training, {name}: {difference:.1e}");
            assert!(difference < 1e-4, "{name}: {difference}");
        }
    }
}
