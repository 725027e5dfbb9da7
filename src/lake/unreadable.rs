//! Names the file and the column that a query could not decode: the engine's errors name neither.

use datafusion::prelude::SessionContext;
use futures::TryStreamExt;

use super::files_table::ListedFile;
use super::{Lake, VIEWS, register_files};
use crate::config::Config;
use crate::failure::{Failure, FailureKind, Result};
use crate::sql_files::SqlFiles;

/// Whether a file did not decode, and nothing says yet which.
fn unnamed(failure: &Failure) -> bool {
    failure.kind == FailureKind::Input && failure.message.contains("Parquet") && !failure.message.contains(".parquet")
}

/// A failure of a verb that reads the lake, with the file's name where one of the lake's does not decode.
pub async fn named(config: &Config, failure: Failure) -> Failure {
    if !unnamed(&failure) {
        return failure;
    }
    let opened = async { Lake::open(config, &SqlFiles::load(config)?).await };
    let Ok(lake) = opened.await else { return failure };
    tracing::info!("looking for the file that does not decode");
    let mut failure = failure;
    // Events last: they have by far the most bytes.
    for view in VIEWS.iter().rev() {
        failure = lake.name_unreadable(failure, view, lake.files(view)).await;
        if !unnamed(&failure) {
            break;
        }
    }
    failure
}

impl Lake {
    /// The failure with the first of these files that does not decode, as it was where all do.
    pub async fn name_unreadable(&self, failure: Failure, view: &str, files: &[ListedFile]) -> Failure {
        if !unnamed(&failure) {
            return failure;
        }
        for file in files {
            if let Ok(Some(column)) = self.unreadable_column(view, file).await {
                return failure
                    .at(format!("{}: column {column}", file.name))
                    .hint("mend or remove the file, then run the same command again");
            }
        }
        failure
    }

    async fn unreadable_column(&self, view: &str, file: &ListedFile) -> Result<Option<String>> {
        let schema = &self.sql.view(view)?.declared.schema;
        let ctx = SessionContext::new();
        register_files(&ctx, "of_file", &self.location, schema.clone(), vec![file.clone()])?;
        for field in schema.fields() {
            let mut rows = ctx.table("of_file").await?.select_columns(&[field.name()])?.execute_stream().await?;
            loop {
                match rows.try_next().await.map_err(Failure::from) {
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(failure) if failure.kind == FailureKind::Input => return Ok(Some(field.name().clone())),
                    // The store's, and not the file's.
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(None)
    }
}
