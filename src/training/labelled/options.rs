//! The command-line options of the input column and the encoder.

use crate::failure::{Failure, Result};
use crate::training::flat_table::TableOptions;

/// Options of the tasks `text` and `image`.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct InputOptions {
    /// Read this column of texts; rows without a text are ignored (--task text).
    #[arg(long, value_name = "COLUMN")]
    pub(crate) text_column: Option<String>,
    /// Read this column of pictures: bytes of JPEG, PNG or WebP, or paths of such files below --image-folder. Rows
    /// whose picture is missing or cannot be decoded are ignored (--task image).
    #[arg(long, value_name = "COLUMN")]
    pub(crate) image_column: Option<String>,
    /// Resolve the paths of the image column below this folder, local or s3://… (--task image) [default: the folder of
    /// the table].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) image_folder: Option<String>,
    /// Start from the encoder in this folder, local or s3://…. With --task text: a Hugging Face folder, or the text/
    /// folder of an earlier text model. With --task image: a folder of weights (docs/models/vision.md), or the image/
    /// folder of an earlier image model [default for --task image: random weights of image.network].
    #[arg(long, value_name = "FOLDER")]
    pub(crate) encoder: Option<String>,
}

/// Refuses the first flag that is given but belongs to another task. `others` are flags and whether they are given.
pub(crate) fn refuse_flags_of_other_tasks(task: &str, table: &TableOptions, others: &[(&str, bool)]) -> Result<()> {
    let of_table = [("--category", !table.category.is_empty()), ("--exclude", !table.exclude.is_empty())];
    match of_table.iter().chain(others).find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((flag, _)) => Err(Failure::usage(format!("{flag} cannot be used with --task {task}"))
            .hint(format!("--task {task} reads one column and the labels"))),
    }
}
