//! The types of arguments and results, in SQL and in libtorch.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float32Array, Float64Array, Int32Array, Int64Array};
use arrow::datatypes::{DataType, Field, Float32Type, Float64Type, Int32Type, Int64Type};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Type of a number, in SQL and in libtorch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Element {
    Float,
    Double,
    Int,
    Bigint,
    Boolean,
}

impl Element {
    fn from_arrow(data_type: &DataType) -> Option<Self> {
        match data_type {
            DataType::Float32 => Some(Self::Float),
            DataType::Float64 => Some(Self::Double),
            DataType::Int32 => Some(Self::Int),
            DataType::Int64 => Some(Self::Bigint),
            DataType::Boolean => Some(Self::Boolean),
            _ => None,
        }
    }

    pub(super) fn data_type(self) -> DataType {
        match self {
            Self::Float => DataType::Float32,
            Self::Double => DataType::Float64,
            Self::Int => DataType::Int32,
            Self::Bigint => DataType::Int64,
            Self::Boolean => DataType::Boolean,
        }
    }

    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Float => Kind::Float,
            Self::Double => Kind::Double,
            Self::Int => Kind::Int,
            Self::Bigint => Kind::Int64,
            Self::Boolean => Kind::Bool,
        }
    }

    /// Reports whether a call may pass values of another type, which are then cast.
    fn accepts(self, given: &DataType) -> bool {
        match self {
            Self::Float | Self::Double => given.is_numeric() || given.is_null(),
            Self::Int | Self::Bigint => given.is_integer() || given.is_null(),
            Self::Boolean => matches!(given, DataType::Boolean | DataType::Null),
        }
    }

    /// A tensor [values] of an array of this type without nulls.
    pub(super) fn tensor(self, values: &dyn Array) -> Result<Tensor, tch::TchError> {
        match self {
            Self::Float => Tensor::f_from_slice(values.as_primitive::<Float32Type>().values()),
            Self::Double => Tensor::f_from_slice(values.as_primitive::<Float64Type>().values()),
            Self::Int => Tensor::f_from_slice(values.as_primitive::<Int32Type>().values()),
            Self::Bigint => Tensor::f_from_slice(values.as_primitive::<Int64Type>().values()),
            Self::Boolean => Tensor::f_from_slice(&values.as_boolean().values().iter().collect::<Vec<bool>>()),
        }
    }

    /// The values of a flat tensor of this kind.
    pub(super) fn array(self, flat: &Tensor) -> Result<ArrayRef, tch::TchError> {
        Ok(match self {
            Self::Float => Arc::new(Float32Array::from(Vec::<f32>::try_from(flat)?)),
            Self::Double => Arc::new(Float64Array::from(Vec::<f64>::try_from(flat)?)),
            Self::Int => Arc::new(Int32Array::from(Vec::<i32>::try_from(flat)?)),
            Self::Bigint => Arc::new(Int64Array::from(Vec::<i64>::try_from(flat)?)),
            Self::Boolean => Arc::new(BooleanArray::from(Vec::<bool>::try_from(flat)?)),
        })
    }
}

/// Numbers in one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Shape {
    Scalar,
    /// Any number of numbers.
    List,
    Vector(usize),
}

/// Type of an argument or a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Type {
    pub(crate) element: Element,
    pub(crate) shape: Shape,
}

impl Type {
    /// `None` for types that no tensor has.
    pub(super) fn from_arrow(data_type: &DataType) -> Option<Self> {
        let (element, shape) = match data_type {
            DataType::List(item) => (item.data_type(), Shape::List),
            DataType::FixedSizeList(item, n) => (item.data_type(), Shape::Vector(usize::try_from(*n).ok()?)),
            other => (other, Shape::Scalar),
        };
        Some(Self { element: Element::from_arrow(element)?, shape })
    }

    /// Type of a column; every list is a plain list.
    pub(super) fn data_type(self) -> DataType {
        match self.shape {
            Shape::Scalar => self.element.data_type(),
            Shape::List | Shape::Vector(_) => DataType::List(self.item()),
        }
    }

    pub(super) fn item(self) -> Arc<Field> {
        Arc::new(Field::new_list_field(self.element.data_type(), true))
    }

    /// Reports whether a call may pass values of another type, which are then cast.
    pub(super) fn accepts(self, given: &DataType) -> bool {
        match (self.shape, given) {
            (_, DataType::Null) => true,
            (Shape::Scalar, other) => self.element.accepts(other),
            (_, DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)) => {
                self.element.accepts(item.data_type())
            }
            _ => false,
        }
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let element = format!("{:?}", self.element).to_uppercase();
        match self.shape {
            Shape::Scalar => f.write_str(&element),
            Shape::List => write!(f, "{element}[]"),
            Shape::Vector(n) => write!(f, "{element}[{n}]"),
        }
    }
}
