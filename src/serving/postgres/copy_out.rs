//! `COPY (query) TO STDOUT`, as text, CSV or binary.

use datafusion::sql::sqlparser::ast::{
    CopyLegacyCsvOption, CopyLegacyOption, CopyOption, CopySource, CopyTarget, Statement,
};
use datafusion_postgres::arrow_pg::datatypes::arrow_schema_to_pg_fields;
use datafusion_postgres::arrow_pg::encoder::{Encoder, encode_value};
use futures::{StreamExt, stream};
use pgwire::api::portal::Format;
use pgwire::api::results::{CopyCsvOptions, CopyEncoder, CopyResponse, CopyTextOptions, FieldInfo, Response};
use pgwire::error::PgWireResult;
use pgwire::messages::copy::CopyData;
use std::sync::Arc;

use super::errors;
use crate::serving::queries::Rows;
use crate::serving::refusal::Refusal;

/// Format of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CopyFormat {
    Text,
    Csv,
    Binary,
}

/// A query whose rows go out in the format of `COPY`.
#[derive(Debug, Clone)]
pub(super) struct CopyOut {
    pub(super) query: Statement,
    format: CopyFormat,
    header: bool,
    delimiter: Option<char>,
    null: Option<String>,
}

impl CopyOut {
    /// Returns the parts of a `COPY … TO STDOUT`; `None` for other statements. Refuses every other `COPY`.
    pub(super) fn of(statement: &Statement) -> PgWireResult<Option<Self>> {
        let Statement::Copy { source, to, target, options, legacy_options, .. } = statement else { return Ok(None) };
        if !to || *target != CopyTarget::Stdout {
            let message = "COPY: expected TO STDOUT, because this connection only reads and writes no files";
            return Err(errors::refused(Refusal::new(Refusal::READ_ONLY, message)));
        }
        let query = match source {
            CopySource::Query(query) => Statement::Query(query.clone()),
            CopySource::Table { table_name, .. } => {
                let hint = format!("COPY (SELECT … FROM {table_name}) TO STDOUT");
                let refusal = Refusal::new(Refusal::UNSUPPORTED, "COPY: expected a query in parentheses").hint(hint);
                return Err(errors::refused(refusal));
            }
        };
        let mut copy = Self { query, format: CopyFormat::Text, header: false, delimiter: None, null: None };
        for option in options {
            copy.set(option)?;
        }
        for option in legacy_options {
            copy.set_legacy(option)?;
        }
        Ok(Some(copy))
    }

    fn set(&mut self, option: &CopyOption) -> PgWireResult<()> {
        match option {
            CopyOption::Format(name) => {
                self.format = match name.value.to_lowercase().as_str() {
                    "text" => CopyFormat::Text,
                    "csv" => CopyFormat::Csv,
                    "binary" => CopyFormat::Binary,
                    other => {
                        return Err(errors::unsupported(format!("COPY: expected text, csv or binary, got {other}")));
                    }
                };
            }
            CopyOption::Header(header) => self.header = *header,
            CopyOption::Delimiter(delimiter) => self.delimiter = Some(*delimiter),
            CopyOption::Null(null) => self.null = Some(null.clone()),
            CopyOption::Encoding(name) if ["utf8", "utf-8"].contains(&name.to_lowercase().as_str()) => {}
            other => return Err(errors::unsupported(format!("COPY: option {other} is not supported"))),
        }
        Ok(())
    }

    fn set_legacy(&mut self, option: &CopyLegacyOption) -> PgWireResult<()> {
        match option {
            CopyLegacyOption::Binary => self.format = CopyFormat::Binary,
            CopyLegacyOption::Csv(options) => {
                self.format = CopyFormat::Csv;
                self.header = options.iter().any(|option| matches!(option, CopyLegacyCsvOption::Header));
            }
            CopyLegacyOption::Delimiter(delimiter) => self.delimiter = Some(*delimiter),
            CopyLegacyOption::Null(null) => self.null = Some(null.clone()),
            other => return Err(errors::unsupported(format!("COPY: option {other} is not supported"))),
        }
        Ok(())
    }

    /// Encodes rows as they come.
    pub(super) fn response(&self, rows: Rows) -> PgWireResult<Response> {
        let format = match self.format {
            CopyFormat::Binary => Format::UnifiedBinary,
            CopyFormat::Text | CopyFormat::Csv => Format::UnifiedText,
        };
        let fields = Arc::new(arrow_schema_to_pg_fields(&rows.schema, &format, None)?);
        let mut encoder = self.encoder(&fields);
        let header = self.header_line(&fields);
        let arrow_schema = Arc::clone(&rows.schema);
        let (columns, pg_fields) = (fields.len(), Arc::clone(&fields));
        let data = rows.stream.map(move |batch| {
            let batch = batch.map_err(errors::refused)?;
            let mut lines = Vec::new();
            for row in 0..batch.num_rows() {
                for ((column, arrow), pg) in batch.columns().iter().zip(arrow_schema.fields()).zip(pg_fields.iter()) {
                    encode_value(&mut encoder, column, row, arrow, pg)?;
                }
                lines.push(Encoder::take_row(&mut encoder));
            }
            Ok(lines)
        });
        let data = data.flat_map(|lines: PgWireResult<Vec<CopyData>>| match lines {
            Ok(lines) => stream::iter(lines.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => stream::iter(vec![Err(error)]),
        });
        let data = stream::iter(header.map(Ok)).chain(data);
        let binary = i8::from(self.format == CopyFormat::Binary);
        Ok(Response::CopyOut(CopyResponse::new(binary, columns, data)))
    }

    fn encoder(&self, fields: &Arc<Vec<FieldInfo>>) -> CopyEncoder {
        match self.format {
            CopyFormat::Binary => CopyEncoder::new_binary(Arc::clone(fields)),
            CopyFormat::Text => {
                let mut options = CopyTextOptions::default();
                if let Some(delimiter) = self.delimiter {
                    options.delimiter = delimiter.to_string().into();
                }
                if let Some(null) = &self.null {
                    options.null_string = null.as_str().into();
                }
                CopyEncoder::new_text(Arc::clone(fields), options)
            }
            CopyFormat::Csv => {
                let mut options = CopyCsvOptions::default();
                if let Some(delimiter) = self.delimiter {
                    options.delimiter = delimiter.to_string().into();
                }
                if let Some(null) = &self.null {
                    options.null_string = null.as_str().into();
                }
                CopyEncoder::new_csv(Arc::clone(fields), options)
            }
        }
    }

    fn header_line(&self, fields: &[FieldInfo]) -> Option<CopyData> {
        if !self.header || self.format == CopyFormat::Binary {
            return None;
        }
        let delimiter = match (self.delimiter, self.format) {
            (Some(delimiter), _) => delimiter.to_string(),
            (None, CopyFormat::Csv) => ",".into(),
            (None, _) => "\t".into(),
        };
        let names: Vec<&str> = fields.iter().map(FieldInfo::name).collect();
        Some(CopyData::new(format!("{}\n", names.join(&delimiter)).into()))
    }
}
