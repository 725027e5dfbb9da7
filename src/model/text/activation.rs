//! Activations of feed-forward layers, by the names that `transformers` gives them.

use tch::Tensor;

use crate::failure::Result;

/// The function between the two linear maps of a feed-forward layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Activation {
    /// Exact: x Φ(x).
    Gelu,
    /// x Φ(x), approximated with tanh (Hendrycks and Gimpel 2016).
    GeluTanh,
    /// The same approximation with rounded constants; differs in the last digits of float32.
    GeluFast,
    /// x σ(1.702 x).
    QuickGelu,
    Relu,
    Silu,
    Tanh,
}

impl Activation {
    pub(crate) const NAMES: [(&'static str, Activation); 9] = [
        ("gelu", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("gelu_fast", Activation::GeluFast),
        ("quick_gelu", Activation::QuickGelu),
        ("relu", Activation::Relu),
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
        ("tanh", Activation::Tanh),
    ];

    pub(crate) fn from_name(name: &str) -> Option<Activation> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, activation)| *activation)
    }

    pub(crate) fn apply(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Activation::Gelu => x.f_gelu("none")?,
            Activation::GeluTanh => x.f_gelu("tanh")?,
            Activation::GeluFast => {
                let inner = x * 0.7978845608 * (x * x * 0.044715 + 1.0);
                x * 0.5 * (inner.f_tanh()? + 1.0)
            }
            Activation::QuickGelu => x * (x * 1.702).f_sigmoid()?,
            Activation::Relu => x.f_relu()?,
            Activation::Silu => x.f_silu()?,
            Activation::Tanh => x.f_tanh()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn activations_agree_with_their_formulas() {
        // By the formulas of their papers, in float64, at -3, -0.5, 0 and 2.
        let cases: [(&str, [f64; 4]); 6] = [
            ("gelu", [-0.0040497, -0.1542688, 0.0, 1.9544997]),
            ("gelu_new", [-0.0036374, -0.1542860, 0.0, 1.9545977]),
            ("gelu_fast", [-0.0036374, -0.1542860, 0.0, 1.9545977]),
            ("quick_gelu", [-0.0180713, -0.1496116, 0.0, 1.9356586]),
            ("relu", [0.0, 0.0, 0.0, 2.0]),
            ("swish", [-0.1422776, -0.1887703, 0.0, 1.7615942]),
        ];
        let x = Tensor::from_slice(&[-3f32, -0.5, 0.0, 2.0]);
        for (name, expected) in cases {
            let got = Vec::<f64>::try_from(Activation::from_name(name).unwrap().apply(&x).unwrap()).unwrap();
            for (got, expected) in got.iter().zip(expected) {
                assert!((got - expected).abs() < 1e-6, "{name}: {got} for {expected}");
            }
        }
        assert_eq!(Activation::from_name("GELU"), None);
    }
}
