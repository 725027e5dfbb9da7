//! The prompt of `intentcast sql`: commands that begin with a backslash, completion, highlighting.

use datafusion::common::TableReference;
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::DefaultHistory;
use rustyline::validate::Validator;
use rustyline::{Context, Editor, Helper};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::format::Layout;
use super::shell::Shell;
use crate::config::{self, Config};
use crate::engine::schemas::{BARE, CATALOG};
use crate::failure::{Failure, Result};
use crate::workspace::descriptions;

const HELP: &str = "\
SQL ends with a semicolon.
\\d          list tables and views
\\d NAME     columns of a table or view (also as SCHEMA.NAME), and what they mean; of a schema, its tables
\\df         list the functions of intentcast
\\df TEXT    list all functions whose names have this text
\\x          print each row as a list of its columns: on, off, or where the terminal is too narrow (default)
\\timing     print the seconds of each query: on or off
\\q          end; also Ctrl-D
Tab completes names. Ctrl-C cancels a query, and keeps the prompt.";

/// Schemas in the order in which they are listed.
const SCHEMAS: [&str; 4] = ["tables", "report", "features", "lake"];

/// Words that a table follows.
const BEFORE_TABLES: [&str; 5] = ["FROM", "JOIN", "TABLE", "DESCRIBE", "\\D"];

#[rustfmt::skip]
const KEYWORDS: [&str; 44] = [
    "AND", "AS", "ASC", "BETWEEN", "BY", "CASE", "CAST", "COUNT", "CREATE", "CROSS JOIN", "DATE", "DESC", "DESCRIBE", "DISTINCT", "ELSE",
    "END", "EXISTS", "EXPLAIN", "FILTER", "FROM", "FULL JOIN", "GROUP BY", "HAVING", "IN", "INTERVAL", "IS", "JOIN", "LEFT JOIN", "LIKE",
    "LIMIT", "NOT", "NULL", "ON", "OR", "ORDER BY", "OVER", "PARTITION BY", "SELECT", "SHOW TABLES", "THEN", "UNION ALL", "WHEN", "WHERE",
    "WITH",
];

/// One line that is no SQL.
#[derive(Debug, PartialEq)]
enum Meta<'a> {
    Help,
    Tables,
    Columns(&'a str),
    /// Those whose names have a text.
    Functions(&'a str),
    Expanded,
    Timing,
    Quit,
    Unknown(&'a str),
}

impl<'a> Meta<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let line = line.trim().trim_end_matches(';').trim_end();
        match line {
            "help" | "\\?" | "\\h" => Some(Self::Help),
            "\\d" | "\\dt" | "\\dv" => Some(Self::Tables),
            "\\df" => Some(Self::Functions("")),
            "\\x" => Some(Self::Expanded),
            "\\timing" => Some(Self::Timing),
            "\\q" | "exit" | "quit" => Some(Self::Quit),
            _ => match (line.strip_prefix("\\d "), line.strip_prefix("\\df ")) {
                (Some(name), _) => Some(Self::Columns(name.trim().trim_matches('"'))),
                (_, Some(text)) => Some(Self::Functions(text.trim())),
                _ => line.starts_with('\\').then_some(Self::Unknown(line)),
            },
        }
    }
}

/// A shell that reads statements from a person.
pub(super) struct Prompt<'a> {
    shell: &'a Shell,
    layout: Layout,
    has_timing: bool,
    /// Counts Ctrl-C on a terminal.
    interrupts: Option<watch::Receiver<u64>>,
}

impl<'a> Prompt<'a> {
    pub(super) fn new(shell: &'a Shell) -> Self {
        Self { shell, layout: Layout::Fitting, has_timing: false, interrupts: None }
    }

    /// Reads statements until end of input; an error is printed and the prompt continues.
    pub(super) async fn run(mut self) -> Result<()> {
        let mut editor: Editor<NameCompleter, DefaultHistory> =
            Editor::new().map_err(|e| Failure::bug(format!("no prompt: {e}")))?;
        editor.set_helper(Some(NameCompleter::of_session(&self.shell.ctx).await));
        let is_terminal = io::stdin().is_terminal();
        if is_terminal {
            self.interrupts = Some(count_interrupts().map_err(|e| Failure::bug(format!("no Ctrl-C: {e}")))?);
        }
        let config = self.shell.workspace.as_ref().map(|workspace| &workspace.config);
        let history = config.and_then(history_file).filter(|_| is_terminal);
        if is_terminal {
            eprintln!("help lists commands; \\q or Ctrl-D ends");
        }
        if let Some(file) = &history {
            // There is none yet at first.
            editor.load_history(file).unwrap_or_default();
        }
        let mut first_failure = None;
        let mut pending = String::new();
        loop {
            let line = editor.readline(if pending.is_empty() { "intentcast> " } else { "        ... " });
            let is_end = match line {
                Ok(line) => {
                    // Within a statement, `help` is a name.
                    let is_meta = pending.is_empty() || line.trim_start().starts_with('\\');
                    match Meta::parse(&line).filter(|_| is_meta) {
                        Some(Meta::Quit) => break,
                        Some(meta) => {
                            editor.add_history_entry(line.trim()).unwrap_or_default();
                            keep_first(&mut first_failure, self.run_meta(&meta).await);
                            continue;
                        }
                        None => pending.push_str(&format!("{line}\n")),
                    }
                    false
                }
                Err(ReadlineError::Interrupted) => {
                    pending.clear();
                    continue;
                }
                Err(ReadlineError::Eof) => true,
                Err(e) => {
                    keep_first(&mut first_failure, Err(Failure::usage(format!("standard input: {e}"))));
                    true
                }
            };
            let text = pending.trim().to_string();
            if text.is_empty() {
                pending.clear();
            } else if (is_end && !is_terminal) || ends_statement(&text) {
                editor.add_history_entry(&text).unwrap_or_default();
                keep_first(&mut first_failure, self.query(&text).await);
                pending.clear();
            }
            if is_end {
                break;
            }
        }
        if let Some(file) = &history
            && let Err(e) = editor.append_history(file)
        {
            eprintln!("note: {}: statements of this session are not remembered: {e}", file.display());
        }
        match first_failure {
            // A script must not pass for done.
            Some(failure) if !is_terminal => Err(failure.at("first failed statement")),
            _ => Ok(()),
        }
    }

    /// Runs SQL until it is done or, on a terminal, cancelled by Ctrl-C.
    async fn query(&self, sql: &str) -> Result<()> {
        let clock = Instant::now();
        let ran = match self.interrupts.clone() {
            None => self.shell.run_in(sql, self.layout).await,
            Some(mut interrupts) => {
                interrupts.mark_unchanged();
                tokio::select! {
                    biased;
                    _ = interrupts.changed() => Err(Failure::usage("cancelled")),
                    ran = self.shell.run_in(sql, self.layout) => ran,
                }
            }
        };
        if self.has_timing {
            eprintln!("time: {:.3} s", clock.elapsed().as_secs_f64());
        }
        ran
    }

    async fn run_meta(&mut self, meta: &Meta<'_>) -> Result<()> {
        match meta {
            Meta::Help => eprintln!("{HELP}"),
            Meta::Tables => {
                self.query(&tables_of(&SCHEMAS)).await?;
                eprintln!("\\d {BARE} lists the intermediate steps");
            }
            Meta::Columns(name) if self.has_schema(name) => return self.query(&tables_of(&[name])).await,
            Meta::Columns(name) => return self.query(&self.columns(name)?).await,
            Meta::Functions(text) => return self.query(&functions_with(text)).await,
            Meta::Expanded => {
                self.layout = match self.layout {
                    Layout::Fitting => Layout::Expanded,
                    Layout::Expanded => Layout::Table,
                    Layout::Table => Layout::Fitting,
                };
                eprintln!(
                    "expanded: {}",
                    match self.layout {
                        Layout::Fitting => "where the terminal is too narrow",
                        Layout::Expanded => "on",
                        Layout::Table => "off",
                    }
                );
            }
            Meta::Timing => {
                self.has_timing = !self.has_timing;
                eprintln!("timing: {}", if self.has_timing { "on" } else { "off" });
            }
            Meta::Unknown(line) => {
                return Err(Failure::usage(format!("{line}: no such command")).hint("help lists all"));
            }
            Meta::Quit => {}
        }
        Ok(())
    }

    fn has_schema(&self, name: &str) -> bool {
        let catalog = self.shell.ctx.catalog(CATALOG);
        catalog.is_some_and(|catalog| catalog.schema_names().iter().any(|schema| schema == name))
    }

    /// Prints the comment on a table. Returns a query for its columns and what they mean, where that is declared.
    fn columns(&self, name: &str) -> Result<String> {
        let table = TableReference::parse_str(name);
        self.shell.refuse_missing(&table)?;
        let described = self.shell.describe(table.table())?;
        if let Some(comment) = &described.table {
            eprintln!("{comment}");
        }
        let meanings: Vec<String> =
            described.columns.iter().map(|(name, text)| format!("({}, {})", quoted(name), quoted(text))).collect();
        let columns = format!(
            "SELECT column_name, data_type, is_nullable, ordinal_position FROM information_schema.columns \
             WHERE table_name = {}{}",
            quoted(table.table()),
            table.schema().map_or(String::new(), |schema| format!(" AND table_schema = {}", quoted(schema)))
        );
        Ok(match meanings.is_empty() {
            true => {
                format!("SELECT column_name, data_type, is_nullable FROM ({columns}) AS c ORDER BY ordinal_position")
            }
            false => format!(
                "SELECT c.column_name, c.data_type, m.meaning FROM ({columns}) AS c \
                 LEFT JOIN (VALUES {}) AS m(name, meaning) ON m.name = c.column_name ORDER BY c.ordinal_position",
                meanings.join(", ")
            ),
        })
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Returns a query for the tables of some schemas, in the order of these.
fn tables_of(schemas: &[&str]) -> String {
    let places: Vec<String> =
        schemas.iter().enumerate().map(|(place, schema)| format!("({}, {place})", quoted(schema))).collect();
    format!(
        "SELECT t.table_schema, t.table_name, lower(t.table_type) AS kind FROM information_schema.tables AS t \
         JOIN (VALUES {}) AS s(name, place) ON s.name = t.table_schema ORDER BY s.place, t.table_name",
        places.join(", ")
    )
}

/// Returns a query for the functions of intentcast, or for all whose names have a text.
fn functions_with(text: &str) -> String {
    let text = text.trim_end_matches('(').to_lowercase();
    let ours = descriptions::functions().into_iter().filter(|(function, _)| function.contains(&text));
    let ours: Vec<String> =
        ours.map(|(function, returns)| format!("(0, {}, {})", quoted(&function), quoted(&returns))).collect();
    let ours = match ours.is_empty() {
        true => "SELECT 0 AS place, '' AS function, '' AS returns WHERE false".into(),
        false => format!("SELECT * FROM (VALUES {}) AS f(place, function, returns)", ours.join(", ")),
    };
    let others = match text.is_empty() {
        true => String::new(),
        false => format!(
            " UNION ALL SELECT 1, coalesce(min(syntax_example), routine_name), coalesce(min(description), '') \
             FROM information_schema.routines WHERE strpos(routine_name, {}) > 0 AND description IS NOT NULL \
             GROUP BY routine_name",
            quoted(&text)
        ),
    };
    format!("SELECT function, returns FROM ({ours}{others}) AS f ORDER BY place, function")
}

/// Returns the file that keeps the statements of earlier sessions, in a folder that it makes.
fn history_file(config: &Config) -> Option<PathBuf> {
    let file = match config.sql.history_file.as_str() {
        "none" => return None,
        "" => {
            let environment = config::environment();
            let folder = |name: &str| environment.iter().find(|(key, value)| key == name && !value.is_empty());
            let state = match folder("XDG_STATE_HOME") {
                Some((_, state)) => PathBuf::from(state),
                None => Path::new(&folder("HOME")?.1).join(".local/state"),
            };
            state.join("intentcast/sql_history")
        }
        named => PathBuf::from(named),
    };
    std::fs::create_dir_all(file.parent()?).ok()?;
    Some(file)
}

/// Counts every Ctrl-C, on a thread of its own: threads that a query keeps busy serve no signals. An editor made later would
/// take the signal away.
fn count_interrupts() -> io::Result<watch::Receiver<u64>> {
    let (counter, counted) = watch::channel(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut interrupts = {
        let _context = runtime.enter();
        signal(SignalKind::interrupt())?
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            while interrupts.recv().await.is_some() {
                counter.send_modify(|count| *count += 1);
            }
        });
    });
    Ok(counted)
}

/// Prints a failure, and keeps it if it is the first one.
fn keep_first(first: &mut Option<Failure>, ran: Result<()>) {
    if let Err(failure) = ran {
        eprintln!("error: {failure}");
        first.get_or_insert(failure);
    }
}

/// Returns whether a text ends with a semicolon that is in no comment and no quoted text.
fn ends_statement(text: &str) -> bool {
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap_or_default();
    let last = tokens.iter().rfind(|token| !matches!(token, Token::Whitespace(_)));
    last == Some(&Token::SemiColon)
}

/// The names that Tab completes.
#[derive(Default)]
struct NameCompleter {
    tables: BTreeSet<String>,
    /// Columns, and functions with their parenthesis.
    others: BTreeSet<String>,
}

impl NameCompleter {
    /// Collects the tables, columns and functions of a session.
    async fn of_session(ctx: &SessionContext) -> Self {
        let mut names = Self::default();
        let state = ctx.state();
        names.others.extend(state.scalar_functions().keys().map(|name| format!("{name}(")));
        names.others.extend(state.aggregate_functions().keys().map(|name| format!("{name}(")));
        names.others.extend(state.table_functions().keys().map(|name| format!("{name}(")));
        for catalog in ctx.catalog_names().iter().filter_map(|name| ctx.catalog(name)) {
            for schema in catalog.schema_names().iter().filter_map(|name| catalog.schema(name)) {
                for table in schema.table_names() {
                    if let Ok(Some(provider)) = schema.table(&table).await {
                        names.others.extend(provider.schema().fields().iter().map(|field| field.name().clone()));
                    }
                    names.tables.insert(table);
                }
            }
        }
        names
    }

    /// Returns where the word before the cursor begins, and the words that continue it, whatever its case: tables where one is
    /// expected, otherwise names before keywords.
    fn continue_word(&self, line: &str, cursor: usize) -> (usize, Vec<String>) {
        let before = line.get(..cursor).unwrap_or(line);
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let start =
            before.rfind(|c| !is_part(c)).map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let begun = before[start..].to_lowercase();
        if begun.is_empty() {
            return (start, Vec::new());
        }
        let word_before = before[..start].split_whitespace().next_back().unwrap_or_default();
        let is_table = BEFORE_TABLES.iter().any(|word| word.eq_ignore_ascii_case(word_before));
        let keywords = KEYWORDS.iter().map(ToString::to_string);
        let words: Vec<String> = match is_table {
            true => self.tables.iter().cloned().collect(),
            false => self.tables.union(&self.others).cloned().chain(keywords).collect(),
        };
        (start, words.into_iter().filter(|word| word.to_lowercase().starts_with(&begun)).collect())
    }
}

impl Completer for NameCompleter {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.continue_word(line, pos))
    }
}

impl Highlighter for NameCompleter {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        Cow::Owned(highlighted(line))
    }

    fn highlight_char(&self, _: &str, _: usize, kind: CmdKind) -> bool {
        kind != CmdKind::MoveCursor
    }
}

impl Hinter for NameCompleter {
    type Hint = String;
}

impl Validator for NameCompleter {}

impl Helper for NameCompleter {}

/// Writes keywords in bold and texts in green, by the codes of a terminal.
fn highlighted(line: &str) -> String {
    let is_keyword = |word: &str| KEYWORDS.iter().flat_map(|k| k.split(' ')).any(|k| k.eq_ignore_ascii_case(word));
    let mut out = String::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let end = match first {
            '\'' => rest[1..].find('\'').map_or(rest.len(), |at| at + 2),
            c if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(end);
        match first {
            '\'' => out.push_str(&format!("\x1b[32m{token}\x1b[0m")),
            _ if is_keyword(token) => out.push_str(&format!("\x1b[1m{token}\x1b[0m")),
            _ => out.push_str(token),
        }
        rest = after;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_recognised_among_sql() {
        assert_eq!(Meta::parse("\\d \"intent\" "), Some(Meta::Columns("intent")));
        assert_eq!(Meta::parse(" \\df;"), Some(Meta::Functions("")));
        assert_eq!(Meta::parse("\\df score"), Some(Meta::Functions("score")));
        assert_eq!(Meta::parse("help"), Some(Meta::Help));
        assert_eq!(Meta::parse("SELECT 1;"), None);
        assert_eq!(Meta::parse("\\nothing"), Some(Meta::Unknown("\\nothing")));
    }

    #[test]
    fn a_statement_ends_with_a_semicolon_of_its_own() {
        for text in ["SELECT 1;", "SELECT 1; -- one", "SELECT 1 /* a; */ ;", "SELECT 'a;b';"] {
            assert!(ends_statement(text), "{text}");
        }
        for text in ["SELECT 1", "SELECT 1 -- one;", "SELECT 'x;", "SELECT /* ;", ""] {
            assert!(!ends_statement(text), "{text}");
        }
    }

    #[test]
    fn tab_continues_the_word_before_the_cursor() {
        let words = NameCompleter {
            tables: ["intent", "intent_history"].map(String::from).into(),
            others: ["interest", "score_intents("].map(String::from).into(),
        };
        assert_eq!(words.continue_word("sel", 3), (0, vec!["SELECT".to_string()]));
        let continued = |line: &str| words.continue_word(line, line.len()).1;
        assert_eq!(words.continue_word("SELECT * FROM inte", 18).0, 14);
        for line in ["SELECT * FROM inte", "\\d inte", "x left join INTE"] {
            assert_eq!(continued(line), ["intent", "intent_history"], "{line}");
        }
        assert_eq!(continued("SELECT inte"), ["intent", "intent_history", "interest", "INTERVAL"]);
        assert_eq!(words.continue_word("größe, score", 14), (9, vec!["score_intents(".to_string()]));
        assert!(words.continue_word("SELECT ", 7).1.is_empty());
    }

    #[test]
    fn highlighting_changes_no_character() {
        for line in ["SELECT 'it''s' FROM \"größe\" -- from", "'open", "WHERE x='é'", ""] {
            let plain =
                ["\x1b[32m", "\x1b[1m", "\x1b[0m"].iter().fold(highlighted(line), |l, code| l.replace(code, ""));
            assert_eq!(plain, line);
        }
        assert!(highlighted("select x").starts_with("\x1b[1mselect\x1b[0m x"));
    }
}
