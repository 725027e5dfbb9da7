//! Rows that are equal cost one pass: what a network says of a column, each different value asked once.

use arrow::array::{ArrayRef, Float32Builder, ListBuilder};
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use crate::failure::Result;

/// The numbers of each row; none where a row has no answer.
pub type Answers<N> = Vec<Option<Arc<[N]>>>;

/// What `of` says of the rows that are there; it sees each different one once.
pub fn answers<T: Copy + Eq + Hash, N>(
    rows: &[Option<T>],
    of: impl FnOnce(&[T]) -> Result<Vec<Option<Vec<N>>>>,
) -> Result<Answers<N>> {
    let (mut places, mut distinct) = (HashMap::new(), Vec::new());
    for &row in rows.iter().flatten() {
        places.entry(row).or_insert_with(|| {
            distinct.push(row);
            distinct.len() - 1
        });
    }
    let found: Answers<N> = of(&distinct)?.into_iter().map(|row| row.map(Arc::from)).collect();
    let answer = |row: T| places.get(&row).and_then(|&place| found[place].clone());
    Ok(rows.iter().map(|row| row.and_then(answer)).collect())
}

/// list<float32> [rows]; null where a row has no answer.
pub fn vectors(rows: &Answers<f32>) -> ArrayRef {
    let mut column = ListBuilder::new(Float32Builder::new());
    for row in rows {
        column.values().append_slice(row.as_deref().unwrap_or_default());
        column.append(row.is_some());
    }
    Arc::new(column.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::Float32Type;

    #[test]
    fn equal_rows_are_asked_once_and_what_has_no_answer_is_null() {
        let rows = [Some("aa"), None, Some("bad"), Some("aa"), Some("b")];
        let mut asked = Vec::new();
        let found = answers(&rows, |distinct| {
            asked = distinct.to_vec();
            Ok(distinct.iter().map(|row| (*row != "bad").then(|| vec![row.len() as f32, 0.5])).collect())
        });
        let column = vectors(&found.unwrap());
        assert_eq!(asked, ["aa", "bad", "b"]);
        let lists = column.as_list::<i32>();
        assert_eq!((0..5).map(|row| lists.is_valid(row)).collect::<Vec<_>>(), [true, false, false, true, true]);
        assert_eq!(lists.value(3).as_primitive::<Float32Type>().values(), &[2.0, 0.5]);
    }
}
