//! Finds the file and the column that a query could not decode: the engine's errors name neither.

use datafusion::prelude::{DataFrame, SessionContext, ident};
use futures::{StreamExt, TryStreamExt};
use std::time::Duration;

use super::declared::FIX_FILE;
use super::files_table::ListedFile;
use super::{Lake, register_files};
use crate::config::Config;
use crate::failure::{Cause, Failure, FailureKind, Result};
use crate::panics;
use crate::sql_files::SqlFiles;

/// Bounds the search: it only improves the message of a night that has failed already.
const SEARCH_MAX: Duration = Duration::from_secs(60);
const FILES_AT_ONCE: usize = 4;

/// Returns whether the failure reports a file whose bytes do not decode, and the file is still to be found.
fn unsearched(failure: &Failure) -> bool {
    failure.cause == Some(Cause::Undecodable { searched: false })
}

/// Marks a failure as one whose file is named, or was searched for in vain.
fn searched(failure: Failure) -> Failure {
    Failure { cause: Some(Cause::Undecodable { searched: true }), ..failure }
}

/// Adds the name of the lake's file that does not decode to the failure of a verb; leaves other failures as they are.
pub(crate) async fn name_file(config: &Config, failure: Failure) -> Failure {
    if !unsearched(&failure) {
        return failure;
    }
    let opened = async { Lake::open(config, &SqlFiles::load(config)?).await };
    let Ok(lake) = opened.await else { return failure };
    // Events last: they have by far the most bytes.
    let files = lake.tables().rev().flat_map(|table| lake.files(table).iter().map(move |file| (table, file)));
    lake.name_unreadable(failure, files).await
}

impl Lake {
    /// Adds the first of these files that does not decode to the failure; leaves it as it is if all of them do. `files`: each
    /// with its raw table.
    pub(crate) async fn name_unreadable<'a>(
        &self,
        failure: Failure,
        files: impl Iterator<Item = (&'a str, &'a ListedFile)> + Send,
    ) -> Failure {
        if !unsearched(&failure) {
            return failure;
        }
        tracing::info!("searching for the lake file that does not decode");
        let searches = files.map(|(table, file)| async move {
            let column = self.unreadable_column(table, file).await.ok().flatten()?;
            Some(format!("{}: column {column}", file.name))
        });
        let mut found = futures::stream::iter(searches).buffered(FILES_AT_ONCE).filter_map(std::future::ready).boxed();
        match tokio::time::timeout(SEARCH_MAX, found.next()).await {
            Ok(Some(place)) => Failure { kind: FailureKind::Input, ..searched(failure) }.at(place).hint(FIX_FILE),
            Ok(None) => failure,
            Err(_) => searched(failure)
                .hint(format!("a lake file is corrupt; the search for it timed out after {} s", SEARCH_MAX.as_secs())),
        }
    }

    async fn unreadable_column(&self, table: &str, file: &ListedFile) -> Result<Option<String>> {
        let schema = &self.sql.declared(table)?.schema;
        let ctx = SessionContext::new();
        let checked = self.check(table, vec![file.clone()]).await?;
        register_files(&ctx, "file", &self.location, schema.clone(), checked)?;
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let rows = ctx.table("file").await?;
        if let Some(column) = undecoded_column(&rows, &names).await? {
            return Ok(Some(column));
        }
        // Reading all rows needs no index of pages. A filter reads the index, and then the pages where it says that they are.
        for &name in &names {
            let filtered = rows.clone().filter(ident(name).is_not_null())?;
            if decoded_rows(&filtered, &names).await?.is_none() {
                return Ok(Some(name.into()));
            }
        }
        Ok(None)
    }
}

/// Returns the first of these columns of one file whose bytes do not decode, or that ends before the others; `None` if all of
/// them decode.
pub(crate) async fn undecoded_column(file: &DataFrame, columns: &[&str]) -> Result<Option<String>> {
    if decoded_rows(file, columns).await?.is_some() {
        return Ok(None);
    }
    // A column whose last pages are missing decodes alone: it has fewer rows.
    let mut shortest: Option<(usize, &str)> = None;
    for &name in columns {
        let Some(rows) = decoded_rows(file, &[name]).await? else { return Ok(Some(name.into())) };
        if shortest.is_none_or(|(fewest, _)| rows < fewest) {
            shortest = Some((rows, name));
        }
    }
    Ok(shortest.map(|(_, name)| name.into()))
}

/// Reads these columns; returns their number of rows, or `None` if their bytes do not decode.
async fn decoded_rows(file: &DataFrame, columns: &[&str]) -> Result<Option<usize>> {
    let all_rows = async {
        let mut rows = file.clone().select_columns(columns)?.execute_stream().await?;
        let mut count = 0;
        while let Some(batch) = rows.try_next().await? {
            count += batch.num_rows();
        }
        Ok(count)
    };
    match panics::caught(all_rows).await {
        Ok(count) => Ok(Some(count)),
        Err(failure) if failure.is_undecodable() => Ok(None),
        // A file that is gone or that the store does not show says nothing about its bytes.
        Err(failure) => Err(failure),
    }
}
