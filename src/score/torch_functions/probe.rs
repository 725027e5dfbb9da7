//! The first call of a new function, which tests what it is declared as.

use arrow::array::{ArrayRef, AsArray, Float64Array, ListArray};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use std::sync::Arc;

use super::torch_function::TorchFunction;
use super::value_types::{Element, Shape, Type};
use crate::failure::Result;

/// Rows of the test batch.
const PROBE_ROWS: usize = 3;
/// Numbers in each list of the test batch where the declaration leaves the length open.
const PROBE_LENGTH: usize = 4;

impl TorchFunction {
    /// Calls the module with a small batch and with each of its rows alone. Shapes and types must be the declared ones, and a
    /// row's result must not depend on its neighbours, since each run cuts batches differently.
    pub(super) fn probe(&self) -> Result<()> {
        let arguments: Vec<ArrayRef> =
            self.declaration.arguments.iter().map(|(_, t)| probe_values(*t)).collect::<Result<_>>()?;
        let all = self.call(&arguments, PROBE_ROWS)?;
        for row in 0..PROBE_ROWS {
            let alone: Vec<ArrayRef> = arguments.iter().map(|a| a.slice(row, 1)).collect();
            if !equal(&self.call(&alone, 1)?, &all.slice(row, 1))? {
                return Err(self.refuse("a row alone has a different result than in a batch").hint(
                    "a module must compute each row independently: no statistics over the batch, no random numbers",
                ));
            }
        }
        Ok(())
    }
}

/// Small numbers that differ between rows and are valid as ids too.
fn probe_values(declared: Type) -> Result<ArrayRef> {
    let length = match declared.shape {
        Shape::Scalar => 1,
        Shape::List => PROBE_LENGTH,
        Shape::Vector(n) => n,
    };
    let whole = matches!(declared.element, Element::Int | Element::Bigint | Element::Boolean);
    let value = |i: usize| if whole { (i % 2) as f64 } else { ((i % 7) as f64 - 2.0) / 4.0 };
    let values: Float64Array = (0..PROBE_ROWS * length).map(|i| Some(value(i))).collect();
    let values = cast(&values, &declared.element.data_type())?;
    Ok(match declared.shape {
        Shape::Scalar => values,
        _ => {
            let offsets = OffsetBuffer::from_lengths([length; PROBE_ROWS]);
            Arc::new(ListArray::new(declared.item(), offsets, values, None))
        }
    })
}

/// Compares the results of one row, within what the order of sums may change.
fn equal(left: &ArrayRef, right: &ArrayRef) -> Result<bool> {
    let numbers = |array: &ArrayRef| -> Result<Vec<f64>> {
        let flat = match array.as_list_opt::<i32>() {
            Some(list) => list.value(0),
            None => Arc::clone(array),
        };
        Ok(cast(&flat, &DataType::Float64)?.as_primitive::<Float64Type>().values().to_vec())
    };
    let (left, right) = (numbers(left)?, numbers(right)?);
    let same = |(l, r): (&f64, &f64)| l == r || (l.is_nan() && r.is_nan()) || (l - r).abs() <= 1e-4 * l.abs().max(1.0);
    Ok(left.len() == right.len() && left.iter().zip(&right).all(same))
}
