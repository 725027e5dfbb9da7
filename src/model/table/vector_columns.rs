//! Transforms columns of vectors for a table model: lists of numbers of one length, such as the output of `embed_text`.
//!
//! Each dimension is standardised without a logarithm, because dimensions are not amounts. Null vectors are flagged;
//! the network learns a substitute for them.

use arrow::array::{Array, ArrayRef, AsArray, LargeListArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::scaling::{fit_scale, standardise};
use crate::failure::{Failure, Result};

/// The scale of a column of vectors, learnt in training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VectorScale {
    /// The length of each vector.
    pub(crate) width: usize,
    /// Mean of each dimension.
    pub(crate) means: Vec<f32>,
    /// Deviation of each dimension.
    pub(crate) deviations: Vec<f32>,
}

/// The standardised vectors of some rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct VectorRows {
    /// Row-major [rows, width]; zeros for null vectors.
    pub(crate) values: Vec<f32>,
    /// 0 for null vectors, else 1.
    pub(crate) known: Vec<f32>,
}

/// True for lists of numbers.
pub(crate) fn is_vector(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            item.data_type().is_numeric()
        }
        _ => false,
    }
}

impl VectorScale {
    /// Learns the scale from the training rows. Refuses the column if any row has a vector of another length than most
    /// or with NaN, infinity or null in it.
    pub(crate) fn fit(name: &str, array: &ArrayRef, rows: &[usize]) -> Result<Self> {
        let column = VectorColumn::new(name, array)?;
        let width = column.most_common_length();
        if width == 0 {
            return Err(Failure::input(format!(
                "column {name}: expected vectors of at least one number, got empty ones"
            ))
            .hint(format!("pass --exclude {name}, or fix the file")));
        }
        column.check_vectors(width)?;
        let known: Vec<&[f32]> = rows.iter().filter_map(|&row| column.row(row)).collect();
        let mut means = Vec::with_capacity(width);
        let mut deviations = Vec::with_capacity(width);
        for dimension in 0..width {
            let (mean, deviation) = fit_scale(known.iter().map(|vector| f64::from(vector[dimension])));
            means.push(mean);
            deviations.push(deviation);
        }
        Ok(Self { width, means, deviations })
    }

    /// Standardises the vectors of some rows. Refuses the same columns as [`Self::fit`].
    pub(crate) fn transform(&self, name: &str, array: &ArrayRef) -> Result<VectorRows> {
        if [self.means.len(), self.deviations.len()] != [self.width; 2] {
            return Err(Failure::model(format!(
                "column {name}: expected {} means and deviations in the model's card, got {} and {}",
                self.width,
                self.means.len(),
                self.deviations.len()
            ))
            .hint("train again"));
        }
        let column = VectorColumn::new(name, array)?;
        column.check_vectors(self.width)?;
        let mut rows = VectorRows { values: Vec::with_capacity(array.len() * self.width), known: Vec::new() };
        for row in 0..array.len() {
            let vector = column.row(row);
            rows.known.push(f32::from(u8::from(vector.is_some())));
            match vector {
                None => rows.values.extend(std::iter::repeat_n(0.0, self.width)),
                Some(vector) => {
                    let scale = self.means.iter().zip(&self.deviations);
                    let numbers = vector.iter().zip(scale);
                    rows.values.extend(numbers.map(|(value, (mean, dev))| standardise(*value, *mean, *dev)));
                }
            }
        }
        Ok(rows)
    }
}

/// The vectors of a column as float32.
struct VectorColumn<'a> {
    name: &'a str,
    lists: LargeListArray,
}

impl<'a> VectorColumn<'a> {
    fn new(name: &'a str, array: &ArrayRef) -> Result<Self> {
        // A column of literal NULLs in a query has the type Null.
        if !is_vector(array.data_type()) && *array.data_type() != DataType::Null {
            return Err(Failure::input(format!(
                "column {name}: expected vectors (lists of numbers), got {}",
                array.data_type()
            )));
        }
        let lists = cast(array, &DataType::new_large_list(DataType::Float32, true))?;
        Ok(Self { name, lists: lists.as_list::<i64>().clone() })
    }

    /// Returns a row's vector; `None` if it is null.
    fn row(&self, row: usize) -> Option<&[f32]> {
        let range = self.value_range(row)?;
        Some(&self.lists.values().as_primitive::<Float32Type>().values()[range])
    }

    fn value_range(&self, row: usize) -> Option<std::ops::Range<usize>> {
        let ends = self.lists.value_offsets();
        self.lists.is_valid(row).then(|| ends[row] as usize..ends[row + 1] as usize)
    }

    /// Returns the most common length, so that vectors of other lengths are refused; 0 without vectors.
    fn most_common_length(&self) -> usize {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        let lengths = (0..self.lists.len()).filter_map(|row| self.row(row)).map(<[f32]>::len);
        lengths.for_each(|length| *counts.entry(length).or_default() += 1);
        counts.into_iter().max_by_key(|(length, rows)| (*rows, Reverse(*length))).map_or(0, |(length, _)| length)
    }

    fn check_vectors(&self, width: usize) -> Result<()> {
        let rows = self.lists.len();
        let name = self.name;
        let hint = "replace such vectors by null: the model learns a substitute for missing vectors";
        let lengths = (0..rows).map(|row| self.row(row).map(<[f32]>::len));
        let others: Vec<(usize, usize)> =
            lengths.enumerate().filter_map(|(row, length)| Some((row, length.filter(|l| *l != width)?))).collect();
        if let Some((row, length)) = others.first() {
            return Err(Failure::input(format!(
                "column {name}: expected vectors of {width} numbers, got {} of {rows} rows with another length, \
                 row {} with {length}",
                others.len(),
                row + 1
            ))
            .hint(hint));
        }
        let numbers = self.lists.values().as_primitive::<Float32Type>();
        let is_invalid = |index: usize| numbers.is_null(index) || !numbers.value(index).is_finite();
        let has_invalid = |row: &usize| self.value_range(*row).is_some_and(|mut range| range.any(is_invalid));
        let damaged: Vec<usize> = (0..rows).filter(has_invalid).collect();
        match damaged.first() {
            None => Ok(()),
            Some(row) => Err(Failure::input(format!(
                "column {name}: expected finite numbers in each vector, got {} of {rows} rows with NaN, infinity or null \
                 among them, row {} first",
                damaged.len(),
                row + 1
            ))
            .hint(hint)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::table::scaling::DEVIATIONS_MAX;
    use arrow::array::{FixedSizeListArray, Float32Array, Float64Array, ListArray, NullArray};
    use arrow::datatypes::{Float64Type, Int64Type};
    use std::sync::Arc;

    type Rows<'a> = &'a [Option<&'a [Option<f64>]>];

    fn lists(rows: Rows) -> ArrayRef {
        let rows = rows.iter().map(|row| row.map(<[Option<f64>]>::to_vec));
        Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(rows))
    }

    const GOOD: Rows = &[Some(&[Some(1.0), Some(7.0)]), None, Some(&[Some(3.0), Some(7.0)])];

    #[test]
    fn dimensions_are_standardised_and_null_vectors_flagged() {
        let scale = VectorScale::fit("v", &lists(GOOD), &[0, 1, 2]).unwrap();
        assert_eq!((scale.width, scale.means.as_slice()), (2, [2.0, 7.0].as_slice()));
        // The second dimension never varies.
        let expected = VectorRows { values: vec![-1.0, 0.0, 0.0, 0.0, 1.0, 0.0], known: vec![1.0, 0.0, 1.0] };
        assert_eq!(scale.transform("v", &lists(GOOD)).unwrap(), expected);
        let far = lists(&[Some(&[Some(1e9), Some(8.0)])]);
        assert_eq!(scale.transform("v", &far).unwrap().values[0], DEVIATIONS_MAX);
        let nothing: ArrayRef = Arc::new(NullArray::new(2));
        assert_eq!(scale.transform("v", &nothing).unwrap().known, [0.0, 0.0]);
    }

    #[test]
    fn all_list_types_and_slices_are_equivalent() {
        let scale = VectorScale::fit("v", &lists(GOOD), &[0, 1, 2]).unwrap();
        let expected = scale.transform("v", &lists(GOOD)).unwrap();
        let item = Arc::new(arrow::datatypes::Field::new_list_field(DataType::Float32, true));
        let flat: ArrayRef = Arc::new(Float32Array::from(vec![1.0, 7.0, f32::NAN, 0.0, 3.0, 7.0]));
        let nulls = Some(vec![true, false, true].into());
        let fixed: ArrayRef = Arc::new(FixedSizeListArray::try_new(item, 2, flat, nulls).unwrap());
        let large = cast(&lists(GOOD), &DataType::new_large_list(DataType::Float64, true)).unwrap();
        let whole = vec![Some(vec![Some(1), Some(7)]), None, Some(vec![Some(3), Some(7)])];
        let whole: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(whole));
        for same in [&fixed, &large, &whole] {
            assert_eq!(scale.transform("v", same).unwrap(), expected, "{}", same.data_type());
            assert_eq!(VectorScale::fit("v", same, &[0, 1, 2]).unwrap(), scale, "{}", same.data_type());
            let last = scale.transform("v", &same.slice(2, 1)).unwrap();
            assert_eq!(last, VectorRows { values: vec![1.0, 0.0], known: vec![1.0] }, "{}", same.data_type());
        }
    }

    #[test]
    fn other_lengths_and_invalid_numbers_are_refused_with_counts() {
        let refused = |rows: Rows| VectorScale::fit("v", &lists(rows), &[0]).unwrap_err();
        let odd = refused(&[Some(&[Some(1.0)]), Some(&[Some(1.0), Some(2.0)]), None, Some(&[Some(1.0), Some(3.0)])]);
        assert_eq!(odd.kind.exit_code(), 3);
        assert!(
            odd.message
                .contains("column v: expected vectors of 2 numbers, got 1 of 4 rows with another length, row 1 with 1"),
            "{odd}"
        );
        assert!(refused(&[Some(&[]), Some(&[])]).message.contains("got empty ones"));
        for none in [Some(f64::NAN), Some(f64::INFINITY), Some(1e300), None] {
            let damaged = refused(&[Some(&[Some(1.0), Some(2.0)]), Some(&[Some(1.0), none])]);
            assert_eq!(damaged.kind.exit_code(), 3);
            assert!(
                damaged.message.contains("got 1 of 2 rows with NaN, infinity or null among them, row 2"),
                "{damaged}"
            );
        }
        let scale = VectorScale::fit("v", &lists(GOOD), &[0, 1, 2]).unwrap();
        let longer = scale.transform("v", &lists(&[Some(&[Some(1.0); 3])])).unwrap_err();
        assert!(longer.message.contains("expected vectors of 2 numbers, got 1 of 1 rows"), "{longer}");
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        assert!(
            scale.transform("v", &numbers).unwrap_err().message.contains("expected vectors (lists of numbers), got")
        );
        let cut = VectorScale { means: vec![0.0], ..scale };
        assert_eq!(cut.transform("v", &lists(GOOD)).unwrap_err().kind.exit_code(), 6);
    }
}
