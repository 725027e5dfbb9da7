//! Finds the place in a statement that an error names.

use datafusion::common::Location;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

/// Returns the place that an error of parsing or planning names; both numbers count from one.
pub(crate) fn of_error(error: &DataFusionError) -> Option<Location> {
    if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        return Some(span.start);
    }
    match error.find_root() {
        DataFusionError::SQL(parser, _) => of_parser(parser),
        _ => None,
    }
}

/// Returns the place that a parser's error names.
pub(crate) fn of_parser(error: &ParserError) -> Option<Location> {
    match error {
        ParserError::ParserError(message) | ParserError::TokenizerError(message) => in_message(message),
        ParserError::RecursionLimitExceeded => None,
    }
}

/// Reads the end of a parser's message: "… at Line: 1, Column: 8".
fn in_message(message: &str) -> Option<Location> {
    let (_, place) = message.rsplit_once("at Line: ")?;
    let (line, column) = place.split_once(", Column: ")?;
    Some(Location { line: line.parse().ok()?, column: column.trim().parse().ok()? })
}

/// Returns the number of the character at a place, from one; `None` where the text has no such line.
pub(crate) fn position(text: &str, place: Location) -> Option<usize> {
    let number = |number: u64| usize::try_from(number.checked_sub(1)?).ok();
    let (line, column) = (number(place.line)?, number(place.column)?);
    let lines: Vec<&str> = text.split('\n').take(line + 1).collect();
    let (last, before) = lines.split_last().filter(|_| lines.len() == line + 1)?;
    let before: usize = before.iter().map(|line| line.chars().count() + 1).sum();
    Some(before + column.min(last.chars().count()) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parsers_say_where() {
        let message = "Expected: an expression, found: FROM at Line: 12, Column: 8";
        assert_eq!(in_message(message), Some(Location { line: 12, column: 8 }));
        assert_eq!(in_message("no place"), None);
    }

    #[test]
    fn characters_are_counted_over_lines() {
        let at = |line, column| position("SELECT\n  größer,\n  nope", Location { line, column });
        assert_eq!([at(1, 1), at(2, 3), at(3, 3)], [Some(1), Some(10), Some(20)]);
        // The end of a text, behind the last character.
        assert_eq!(at(3, 7), Some(24));
        assert_eq!([at(4, 1), at(0, 1), at(1, 0)], [None; 3]);
    }
}
