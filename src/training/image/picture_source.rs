//! Fetches the encoded pictures of a table: bytes of a column, or files that a column names.

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use bytes::Bytes;
use futures::{StreamExt, stream};
use std::ops::Range;

use crate::config::Config;
use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::text::text_column;
use crate::model::vision::read_pictures;

/// Files that are fetched concurrently.
const CONCURRENT_FETCHES: usize = 16;
/// A URI with one of these endings is a table; any other is a folder of tables.
const TABLE_EXTENSIONS: [&str; 2] = [".csv", ".parquet"];

#[derive(Debug)]
pub(crate) enum PictureSource {
    Bytes(ArrayRef),
    Files { paths: Vec<String>, folder: Location },
}

impl PictureSource {
    /// `image_folder` is that of the command line; without it, paths are below the folder of the tables.
    pub(crate) fn new(
        config: &Config,
        column: &ArrayRef,
        tables: &[String],
        image_folder: Option<&str>,
    ) -> Result<Self> {
        match column.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => match image_folder {
                None => Ok(Self::Bytes(ArrayRef::clone(column))),
                Some(_) => Err(Failure::usage("--image-folder: the column holds pictures, not paths; remove the flag")),
            },
            data_type if text_column::is_text_type(data_type) && *data_type != DataType::Null => {
                let texts = text_column::read_texts("--image-column", column)?;
                let paths = texts.into_iter().map(Option::unwrap_or_default).collect();
                let uri = match image_folder {
                    Some(uri) => uri.to_string(),
                    None => common_folder(tables)?,
                };
                Ok(Self::Files { paths, folder: Location::open(&uri, &config.s3)? })
            }
            other => Err(Failure::usage(format!(
                "--image-column: expected bytes of pictures, or text with the paths of their files, got {other}"
            ))),
        }
    }

    /// Refuses paths outside the folder; `numbers` are the numbers of the rows in the table.
    pub(crate) fn check_paths(&self, numbers: &[usize]) -> Result<()> {
        let Self::Files { paths, folder } = self else { return Ok(()) };
        match paths.iter().zip(numbers).find(|(path, _)| is_outside(path)) {
            None => Ok(()),
            Some((path, number)) => Err(Failure::input(format!(
                "--image-column: row {number}: expected a path below {}, got {path:?}",
                folder.url
            ))
            .hint("pass the folder above all pictures as --image-folder, and make the paths relative to it")),
        }
    }

    /// Returns the encoded pictures of some rows, or the reason why a row has none.
    pub(crate) async fn fetch(&self, rows: Range<usize>) -> Result<Vec<Result<Bytes, String>>> {
        match self {
            Self::Bytes(column) => {
                let pictures = read_pictures(&column.slice(rows.start, rows.len()))?;
                Ok(pictures.iter().map(|bytes| Ok(Bytes::copy_from_slice(bytes.unwrap_or_default()))).collect())
            }
            Self::Files { paths, folder } => {
                let fetches = paths[rows].iter().map(|name| async move {
                    let Some(path) = folder.path_as_is(name) else {
                        return Ok(Err(format!("{name:?} is not a path")));
                    };
                    let found = folder.read_at(&path).await?;
                    Ok(found.ok_or_else(|| format!("{}: not found", folder.display(&path))))
                });
                let fetched: Vec<Result<_>> = stream::iter(fetches).buffered(CONCURRENT_FETCHES).collect().await;
                fetched.into_iter().collect()
            }
        }
    }
}

/// Returns the one folder of all tables.
fn common_folder(tables: &[String]) -> Result<String> {
    let folder = |uri: &String| match TABLE_EXTENSIONS.iter().any(|extension| uri.ends_with(extension)) {
        true => uri.rsplit_once('/').map_or(".", |(folder, _)| folder).to_string(),
        false => uri.trim_end_matches('/').to_string(),
    };
    let mut folders: Vec<String> = tables.iter().map(folder).collect();
    folders.dedup();
    match folders.as_slice() {
        [one] => Ok(one.clone()),
        several => Err(Failure::usage(format!(
            "--image-folder: required, because the tables are in {} folders and paths could be below any of them",
            several.len()
        ))),
    }
}

/// True for absolute paths, URIs, and paths with `..`.
fn is_outside(path: &str) -> bool {
    path.starts_with('/') || path.contains("://") || path.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BinaryArray, Int64Array, StringArray};
    use std::sync::Arc;

    #[test]
    fn paths_outside_the_folder_are_detected() {
        for path in ["/etc/passwd", "../a.jpg", "a/../../b.jpg", "s3://b/a.jpg"] {
            assert!(is_outside(path), "{path}");
        }
        for path in ["a.jpg", "images/a b.jpg", "images/..a.jpg", "a..b/c.png"] {
            assert!(!is_outside(path), "{path}");
        }
    }

    #[test]
    fn paths_are_below_the_folder_of_the_table() {
        let folder = |tables: &[&str]| common_folder(&tables.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(folder(&["shop/styles.csv"]).unwrap(), "shop");
        assert_eq!(folder(&["styles.csv"]).unwrap(), ".");
        assert_eq!(folder(&["s3://shop/tables/"]).unwrap(), "s3://shop/tables");
        assert_eq!(folder(&["shop/a.csv", "shop/b.csv"]).unwrap(), "shop");
        assert!(folder(&["a/a.csv", "b/b.csv"]).unwrap_err().message.contains("--image-folder: required"));
    }

    #[test]
    fn columns_of_other_types_are_refused() {
        let source = |column: ArrayRef, image_folder| {
            PictureSource::new(&Config::default(), &column, &["a.csv".into()], image_folder)
        };
        let refused = source(Arc::new(Int64Array::from(vec![1])), None).unwrap_err();
        assert!(refused.message.contains("expected bytes of pictures, or text") && refused.message.ends_with("Int64"));
        let paths: ArrayRef = Arc::new(StringArray::from(vec!["a.jpg"]));
        assert!(matches!(source(paths, Some("x")), Ok(PictureSource::Files { .. })));
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![&b"x"[..]]));
        assert_eq!(source(bytes, Some("x")).unwrap_err().kind.exit_code(), 2);
    }
}
