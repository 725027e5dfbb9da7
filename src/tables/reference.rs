//! Renders docs/reference/tables.md from the declared tables.

use std::fmt::Write;

use super::schemas::specs;
use crate::failure::{Failure, Result};
use crate::features::quarantine;

/// The table reference as Markdown.
pub fn markdown() -> Result<String> {
    let mut text = String::from(
        "# The published tables\n\n\
         Generated from src/tables/published.rs by `make docs`; a test compares them. The tables are Delta tables below\n\
         `<output>/tables/`, partitioned by `run_date` (a date, the last column of each). `runs` alone decides which nights\n\
         are visible; sql/views/visible_nights.sql is the query. Times are UTC. Every column always exists. It is null only where\n\
         its meaning says so, and no number is NaN or infinite: sql/checks/values.sql stops a night otherwise.\n",
    );
    for spec in specs() {
        write!(text, "\n## {}\n\nOne row per {}.", spec.name, spec.grain).map_err(Failure::bug)?;
        if !spec.key.is_empty() {
            write!(text, " Key within a night: {}.", spec.key.join(", ")).map_err(Failure::bug)?;
        }
        text.push_str("\n\n| column | type | meaning |\n|---|---|---|\n");
        for column in spec.columns {
            writeln!(text, "| {} | {} | {} |", column.name, column.kind.arrow(), column.meaning)
                .map_err(Failure::bug)?;
        }
        if spec.name == "quarantine" {
            text.push_str("\n| reason | meaning |\n|---|---|\n");
            for reason in quarantine::REASONS {
                writeln!(text, "| `{}` | {} |", reason.name, reason.meaning).map_err(Failure::bug)?;
            }
        }
    }
    Ok(text)
}
