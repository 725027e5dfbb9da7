//! Limits of a statement's text, checked before it is parsed.

use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use std::ops::ControlFlow;

use super::refusal::{Refusal, Result};

/// Largest text, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// Operators of a text, at most. The parser makes a chain of them into a tree as deep as the chain is long, and a tree that is too
/// deep overflows the stack when it is dropped.
const OPERATORS_MAX: usize = 10_000;

/// Joins and set operations of a text, at most. Planning takes time that grows with the square of their number and cannot be
/// cancelled: 3,000 of them kept a thread busy for minutes after the client was gone.
const TABLE_OPERATORS_MAX: usize = 300;

/// Words that take what comes before and after them.
const OPERATORS: [Keyword; 4] = [Keyword::AND, Keyword::OR, Keyword::NOT, Keyword::IS];
const TABLE_OPERATORS: [Keyword; 4] = [Keyword::UNION, Keyword::EXCEPT, Keyword::INTERSECT, Keyword::JOIN];

/// Refuses a statement that names tables or table functions too often: `FROM a, b, …` joins them without a word.
pub(super) fn refuse_many_tables(statement: &ast::Statement) -> Result<()> {
    let mut tables = 0;
    let _: ControlFlow<()> = ast::visit_relations(statement, |_| {
        tables += 1;
        ControlFlow::Continue(())
    });
    refuse_more("tables", tables, TABLE_OPERATORS_MAX)
}

/// Refuses a text that is too long or too complex.
pub(super) fn refuse_complex(sql: &str) -> Result<()> {
    refuse_more("bytes of SQL", sql.len(), TEXT_BYTES_MAX)?;
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize();
    let tokens = tokens.map_err(|e| Refusal::new(Refusal::SYNTAX, e.to_string()))?;
    let is_operator = |token: &&Token| match token {
        Token::Word(word) => OPERATORS.contains(&word.keyword),
        Token::Whitespace(_) | Token::Number(..) | Token::Comma | Token::SingleQuotedString(_) => false,
        _ => true,
    };
    let is_table_operator =
        |token: &&Token| matches!(token, Token::Word(word) if TABLE_OPERATORS.contains(&word.keyword));
    refuse_more("joins, UNIONs and the like", tokens.iter().filter(is_table_operator).count(), TABLE_OPERATORS_MAX)?;
    refuse_more("operators", tokens.iter().filter(is_operator).count(), OPERATORS_MAX)
        .map_err(|refusal| refusal.hint("an IN list holds many values without operators"))
}

fn refuse_more(what: &str, count: usize, max: usize) -> Result<()> {
    match count > max {
        true => Err(Refusal::new(Refusal::TOO_COMPLEX, format!("expected at most {max} {what}, got {count}"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_without_a_join_between_them_count_too() {
        let named = |tables: usize| {
            let sql = format!("SELECT 1 FROM {}", vec!["f('x')"; tables].join(", "));
            let parsed = datafusion::sql::sqlparser::parser::Parser::parse_sql(&PostgreSqlDialect {}, &sql).unwrap();
            refuse_many_tables(&parsed[0])
        };
        named(TABLE_OPERATORS_MAX).unwrap();
        assert_eq!(named(TABLE_OPERATORS_MAX + 1).unwrap_err().sqlstate, Refusal::TOO_COMPLEX);
    }

    #[test]
    fn long_chains_are_refused_and_long_lists_are_not() {
        let chain = |link: &str, links: usize| refuse_complex(&format!("SELECT 1{}", link.repeat(links)));
        chain(" + 1", OPERATORS_MAX).unwrap();
        chain(" UNION SELECT 1", TABLE_OPERATORS_MAX).unwrap();
        chain(", 1", 10 * OPERATORS_MAX).unwrap();
        for refused in [
            chain(" + 1", OPERATORS_MAX + 1),
            chain(" UNION SELECT 1", TABLE_OPERATORS_MAX + 1),
            chain(" ", TEXT_BYTES_MAX),
        ] {
            assert_eq!(refused.unwrap_err().sqlstate, Refusal::TOO_COMPLEX);
        }
        assert_eq!(refuse_complex("SELECT 'open").unwrap_err().sqlstate, Refusal::SYNTAX);
    }
}
