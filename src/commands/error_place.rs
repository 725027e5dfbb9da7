//! Shows where in a statement an error is: its line, with a caret below the place.

use datafusion::common::Location;
use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::engine::error_place::of_error;
use crate::failure::Failure;

/// Characters of a long line that are shown on each side of the place.
const CONTEXT_CHARACTERS: usize = 60;

/// Returns the failure that an error of parsing or planning `text` is, with the place if the error names one.
pub(super) fn pointed(error: DataFusionError, text: &str) -> Failure {
    let place = of_error(&error);
    let failure = Failure::from(error);
    match place {
        Some(place) => point(failure, text, place),
        None => failure,
    }
}

/// Points at the first use of a name in `text`.
pub(super) fn point_at_name(failure: Failure, text: &str, name: &str) -> Failure {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().unwrap_or_default();
    let is_name = |token: &Token| matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case(name));
    match tokens.iter().find(|token| is_name(&token.token)) {
        Some(found) => point(failure, text, found.span.start.into()),
        None => failure,
    }
}

fn point(mut failure: Failure, text: &str, place: Location) -> Failure {
    let position = |number: u64| usize::try_from(number.checked_sub(1)?).ok();
    let (Some(line), Some(column)) = (position(place.line), position(place.column)) else { return failure };
    let Some(shown) = text.lines().nth(line) else { return failure };
    let first = column.saturating_sub(CONTEXT_CHARACTERS);
    // A tab is one character wide here and below.
    let part: String = shown.chars().skip(first).take(2 * CONTEXT_CHARACTERS).collect();
    let part = part.replace(char::is_control, " ");
    let number = match text.lines().count() {
        1 => String::new(),
        _ => format!("line {}: ", place.line),
    };
    let indent = " ".repeat(number.chars().count() + column - first);
    failure.message = format!("{}\n  {number}{part}\n  {indent}^", failure.message);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointed_at(text: &str, line: u64, column: u64) -> String {
        point(Failure::usage("no"), text, Location { line, column }).message
    }

    #[test]
    fn the_caret_is_below_the_place() {
        assert_eq!(pointed_at("SELECT nope", 1, 8), "no\n  SELECT nope\n         ^");
        assert_eq!(
            pointed_at("SELECT\n\tgrößer, nope\nFROM a", 2, 10),
            "no\n  line 2:  größer, nope\n                   ^"
        );
        let long = format!("SELECT {}nope", "'x', ".repeat(1000));
        let message = pointed_at(&long, 1, 5008);
        let lines: Vec<&str> = message.lines().collect();
        assert!(message.len() < 300 && lines[1].ends_with("nope"), "{message}");
        assert_eq!(&lines[1][lines[2].len() - 1..], "nope", "{message}");
    }

    #[test]
    fn a_place_outside_the_text_is_left_out() {
        for (line, column) in [(0, 0), (0, 1), (3, 1), (1, 0)] {
            assert_eq!(pointed_at("SELECT 1", line, column), "no");
        }
        assert_eq!(pointed_at("SELECT", 1, 900).lines().count(), 3);
        assert_eq!(pointed_at("", 1, 1), "no");
    }
}
