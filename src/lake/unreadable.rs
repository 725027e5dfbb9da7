//! Names the file and the column that a query could not decode: the engine's errors name neither.

use datafusion::prelude::{DataFrame, SessionContext};
use futures::{StreamExt, TryStreamExt};
use std::time::Duration;

use super::files_table::ListedFile;
use super::{Lake, VIEWS, register_files};
use crate::config::Config;
use crate::failure::{Failure, FailureKind, Result};
use crate::sql_files::SqlFiles;

/// The search is a help, and a night has failed already.
const SEARCH_MAX: Duration = Duration::from_secs(60);
const FILES_AT_ONCE: usize = 4;

/// Whether it is the bytes of a file that a reader stumbled over.
pub fn undecoded(failure: &Failure) -> bool {
    failure.kind == FailureKind::Input && failure.message.contains("Parquet")
}

/// Whether nothing says yet which file it is, and nobody has looked for as long as may be.
fn unnamed(failure: &Failure) -> bool {
    undecoded(failure) && failure.hint.is_none() && !failure.message.contains(".parquet")
}

/// A failure of a verb that reads the lake, with the file's name where one of the lake's does not decode.
pub async fn named(config: &Config, failure: Failure) -> Failure {
    if !unnamed(&failure) {
        return failure;
    }
    let opened = async { Lake::open(config, &SqlFiles::load(config)?).await };
    let Ok(lake) = opened.await else { return failure };
    // Events last: they have by far the most bytes.
    let files = VIEWS.iter().rev().flat_map(|view| lake.files(view).iter().map(|file| (*view, file)));
    lake.name_unreadable(failure, files).await
}

impl Lake {
    /// The failure with the first of these files that does not decode; as it was where all do, or none was found in time.
    /// `files`: each with the view that it is of.
    pub async fn name_unreadable<'a>(
        &self,
        failure: Failure,
        files: impl Iterator<Item = (&'a str, &'a ListedFile)> + Send,
    ) -> Failure {
        if !unnamed(&failure) {
            return failure;
        }
        tracing::info!("looking for the file that does not decode");
        let looked = files.map(|(view, file)| async move {
            let column = self.unreadable_column(view, file).await.ok().flatten()?;
            Some(format!("{}: column {column}", file.name))
        });
        let mut found = futures::stream::iter(looked).buffered(FILES_AT_ONCE).filter_map(std::future::ready).boxed();
        match tokio::time::timeout(SEARCH_MAX, found.next()).await {
            Ok(Some(place)) => failure.at(place).hint("mend or remove the file, then run the same command again"),
            Ok(None) => failure,
            Err(_) => failure.hint(format!(
                "a file of the lake does not decode; not all could be looked through in {} s",
                SEARCH_MAX.as_secs()
            )),
        }
    }

    async fn unreadable_column(&self, view: &str, file: &ListedFile) -> Result<Option<String>> {
        let schema = &self.sql.view(view)?.declared.schema;
        let ctx = SessionContext::new();
        register_files(&ctx, "of_file", &self.location, schema.clone(), vec![file.clone()])?;
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        undecoded_column(&ctx.table("of_file").await?, &names).await
    }
}

/// The first of these columns of one file that is not what the file says that it is.
pub async fn undecoded_column(file: &DataFrame, columns: &[&str]) -> Result<Option<String>> {
    if decodes(file, columns).await? {
        return Ok(None);
    }
    for &name in columns {
        if !decodes(file, &[name]).await? {
            return Ok(Some(name.into()));
        }
    }
    Ok(None)
}

async fn decodes(file: &DataFrame, columns: &[&str]) -> Result<bool> {
    let mut rows = file.clone().select_columns(columns)?.execute_stream().await?;
    loop {
        match rows.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => return Ok(true),
            // What the store says of a file that is gone, or that it does not show, says nothing of its bytes.
            Err(error) => {
                let failure = Failure::from(error);
                return if undecoded(&failure) { Ok(false) } else { Err(failure) };
            }
        }
    }
}
