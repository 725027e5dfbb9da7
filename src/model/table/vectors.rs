//! Columns of vectors as inputs of a table model: lists of numbers of one length, such as `embed_text` gives.
//!
//! Each place of a vector is standardised by itself, without a logarithm: places have no amounts. What stands for a vector
//! that is null is learnt by the network; here it is only flagged.

use arrow::array::{Array, ArrayRef, AsArray, LargeListArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::columns::{DEVIATIONS_MAX, deviation_of};
use crate::failure::{Failure, Result};

/// What training learnt of a column of vectors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VectorScale {
    /// Numbers of each vector.
    pub width: usize,
    /// Of each place.
    pub means: Vec<f32>,
    pub deviations: Vec<f32>,
}

/// The vectors of some rows as the network takes them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VectorRows {
    /// Row-major [rows, width], standardised; zeros where the vector is null.
    pub values: Vec<f32>,
    /// 0 where the vector is null, else 1.
    pub known: Vec<f32>,
}

/// Whether a type is one of vectors: a list of numbers.
pub fn is_vector(given: &DataType) -> bool {
    match given {
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            item.data_type().is_numeric()
        }
        _ => false,
    }
}

impl VectorScale {
    /// Learns the scale from the training rows; refuses the column if any row has a vector of another length than most, or
    /// one with numbers that are none.
    pub fn fit(name: &str, array: &ArrayRef, rows: &[usize]) -> Result<Self> {
        let column = VectorColumn::open(name, array)?;
        let width = column.usual_length();
        if width == 0 {
            return Err(Failure::input(format!(
                "column {name}: expected vectors of at least one number, got empty ones"
            ))
            .hint(format!("pass --exclude {name}, or mend the file")));
        }
        column.refuse_unless(width)?;
        let known: Vec<&[f32]> = rows.iter().filter_map(|&row| column.row(row)).collect();
        let n = known.len().max(1) as f64;
        let (mut means, mut deviations) = (Vec::with_capacity(width), Vec::with_capacity(width));
        for place in 0..width {
            let mean = known.iter().map(|vector| f64::from(vector[place])).sum::<f64>() / n;
            let squares = known.iter().map(|vector| (f64::from(vector[place]) - mean).powi(2));
            let deviation = (squares.sum::<f64>() / n).sqrt();
            means.push(mean as f32);
            deviations.push(deviation_of(mean, deviation));
        }
        Ok(Self { width, means, deviations })
    }

    /// Standardises the vectors of any rows; refuses what [`Self::fit`] would.
    pub fn read(&self, name: &str, array: &ArrayRef) -> Result<VectorRows> {
        if [self.means.len(), self.deviations.len()] != [self.width; 2] {
            return Err(Failure::model(format!(
                "column {name}: expected {} means and deviations in the model's card, got {} and {}",
                self.width,
                self.means.len(),
                self.deviations.len()
            ))
            .hint("train again"));
        }
        let column = VectorColumn::open(name, array)?;
        column.refuse_unless(self.width)?;
        let mut rows = VectorRows { values: Vec::with_capacity(array.len() * self.width), known: Vec::new() };
        for row in 0..array.len() {
            let vector = column.row(row);
            rows.known.push(f32::from(u8::from(vector.is_some())));
            match vector {
                None => rows.values.extend(std::iter::repeat_n(0.0, self.width)),
                Some(vector) => {
                    let scale = self.means.iter().zip(&self.deviations);
                    let scaled = vector.iter().zip(scale).map(|(value, (mean, deviation))| (value - mean) / deviation);
                    rows.values.extend(scaled.map(|value| value.clamp(-DEVIATIONS_MAX, DEVIATIONS_MAX)));
                }
            }
        }
        Ok(rows)
    }
}

/// A column's vectors as float32.
struct VectorColumn<'a> {
    name: &'a str,
    lists: LargeListArray,
}

impl<'a> VectorColumn<'a> {
    fn open(name: &'a str, array: &ArrayRef) -> Result<Self> {
        // A column that is nothing but `NULL` in a query has no type of its own.
        if !is_vector(array.data_type()) && *array.data_type() != DataType::Null {
            return Err(Failure::input(format!(
                "column {name}: expected vectors (lists of numbers), got {}",
                array.data_type()
            )));
        }
        let lists = cast(array, &DataType::new_large_list(DataType::Float32, true))?;
        Ok(Self { name, lists: lists.as_list::<i64>().clone() })
    }

    /// A row's numbers; `None` where it has no vector.
    fn row(&self, row: usize) -> Option<&[f32]> {
        let place = self.place(row)?;
        Some(&self.lists.values().as_primitive::<Float32Type>().values()[place])
    }

    fn place(&self, row: usize) -> Option<std::ops::Range<usize>> {
        let ends = self.lists.value_offsets();
        self.lists.is_valid(row).then(|| ends[row] as usize..ends[row + 1] as usize)
    }

    /// The length that most vectors have, so that it is the others that are refused; 0 where there is none.
    fn usual_length(&self) -> usize {
        let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
        let lengths = (0..self.lists.len()).filter_map(|row| self.row(row)).map(<[f32]>::len);
        lengths.for_each(|length| *counts.entry(length).or_default() += 1);
        counts.into_iter().max_by_key(|(length, rows)| (*rows, Reverse(*length))).map_or(0, |(length, _)| length)
    }

    fn refuse_unless(&self, width: usize) -> Result<()> {
        let (rows, name) = (self.lists.len(), self.name);
        let hint = "make such a vector null as a whole: what stands for a missing one is learnt";
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
        let none = |place: usize| numbers.is_null(place) || !numbers.value(place).is_finite();
        let damaged: Vec<usize> = (0..rows).filter(|&row| self.place(row).is_some_and(|mut p| p.any(none))).collect();
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
    fn places_are_standardised_and_null_vectors_flagged() {
        let scale = VectorScale::fit("v", &lists(GOOD), &[0, 1, 2]).unwrap();
        assert_eq!((scale.width, scale.means.as_slice()), (2, [2.0, 7.0].as_slice()));
        // The second place never varies: it says nothing.
        let expected = VectorRows { values: vec![-1.0, 0.0, 0.0, 0.0, 1.0, 0.0], known: vec![1.0, 0.0, 1.0] };
        assert_eq!(scale.read("v", &lists(GOOD)).unwrap(), expected);
        let far = lists(&[Some(&[Some(1e9), Some(8.0)])]);
        assert_eq!(scale.read("v", &far).unwrap().values[0], DEVIATIONS_MAX);
        let nothing: ArrayRef = Arc::new(NullArray::new(2));
        assert_eq!(scale.read("v", &nothing).unwrap().known, [0.0, 0.0]);
    }

    #[test]
    fn lists_of_every_kind_and_slices_of_them_read_the_same() {
        let scale = VectorScale::fit("v", &lists(GOOD), &[0, 1, 2]).unwrap();
        let expected = scale.read("v", &lists(GOOD)).unwrap();
        let item = Arc::new(arrow::datatypes::Field::new_list_field(DataType::Float32, true));
        let flat: ArrayRef = Arc::new(Float32Array::from(vec![1.0, 7.0, f32::NAN, 0.0, 3.0, 7.0]));
        let nulls = Some(vec![true, false, true].into());
        let fixed: ArrayRef = Arc::new(FixedSizeListArray::try_new(item, 2, flat, nulls).unwrap());
        let large = cast(&lists(GOOD), &DataType::new_large_list(DataType::Float64, true)).unwrap();
        let whole = vec![Some(vec![Some(1), Some(7)]), None, Some(vec![Some(3), Some(7)])];
        let whole: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(whole));
        for same in [&fixed, &large, &whole] {
            assert_eq!(scale.read("v", same).unwrap(), expected, "{}", same.data_type());
            assert_eq!(VectorScale::fit("v", same, &[0, 1, 2]).unwrap(), scale, "{}", same.data_type());
            let last = scale.read("v", &same.slice(2, 1)).unwrap();
            assert_eq!(last, VectorRows { values: vec![1.0, 0.0], known: vec![1.0] }, "{}", same.data_type());
        }
    }

    #[test]
    fn other_lengths_and_numbers_that_are_none_are_refused_with_counts() {
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
        let longer = scale.read("v", &lists(&[Some(&[Some(1.0); 3])])).unwrap_err();
        assert!(longer.message.contains("expected vectors of 2 numbers, got 1 of 1 rows"), "{longer}");
        let numbers: ArrayRef = Arc::new(Float64Array::from(vec![1.0]));
        assert!(scale.read("v", &numbers).unwrap_err().message.contains("expected vectors (lists of numbers), got"));
        let cut = VectorScale { means: vec![0.0], ..scale };
        assert_eq!(cut.read("v", &lists(GOOD)).unwrap_err().kind.exit_code(), 6);
    }
}
