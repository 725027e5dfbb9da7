//! The prompt of `intentcast sql`, fed through a pipe, and files of statements.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::intentcast;
use crate::support::small_lake::{DATE, GOOD, SmallLake};

/// Types lines into a prompt over an output without nights; returns what it printed, its log and its exit code.
fn typed(lines: &str) -> (String, String, Option<i32>) {
    let output = tempfile::tempdir().unwrap();
    typed_over(&["--output", output.path().to_str().unwrap()], lines)
}

fn typed_over(places: &[&str], lines: &str) -> (String, String, Option<i32>) {
    let mut prompt = Command::new(env!("CARGO_BIN_EXE_intentcast"))
        .arg("sql")
        .args(places)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    prompt.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let done = prompt.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (printed, errors) = (text(done.stdout), text(done.stderr));
    (printed, errors, done.status.code())
}

#[test]
fn backslash_commands_say_what_there_is() {
    let lines = "\\d\n\\d replenishment\n\\df\nhelp\nSELECT count(*) AS nights FROM tables.runs;\n\\q\nSELECT 'after the end';\n";
    let (printed, errors, code) = typed(lines);
    for part in [
        "| tables       | demand_history ",
        "| order_quantity ",
        "units to order today: whole packs",
        "| score_intents(features ",
        "| nights |",
    ] {
        assert!(printed.contains(part), "{part}\n{printed}\n{errors}");
    }
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("\\timing") && !printed.contains("after the end"), "{printed}\n{errors}");
}

#[tokio::test]
async fn tables_of_a_lake_have_their_schema_and_comments() {
    let small = SmallLake::new();
    small.write("events/dt=2026-01-05/e.parquet", GOOD).await;
    let [lake, output] = small.places();
    let lines =
        "\\d\n\\d lake\n\\d lake.events\n\\d features.user_features\n\\d \"user_features\"\n\\d lake.user_features\n";
    let (printed, errors, code) = typed_over(&["--lake", &lake, "--output", &output, "--date", DATE], lines);
    for part in ["| tables       | intent ", "| features     | user_features ", "| lake         | events "] {
        assert!(printed.contains(part), "{part}\n{printed}\n{errors}");
    }
    assert_eq!(printed.matches("| lake         | events ").count(), 2, "in both lists\n{printed}");
    for (part, times) in [("| text of a review ", 1), ("| hours since the last event ", 2)] {
        assert_eq!(printed.matches(part).count(), times, "{part}\n{printed}\n{errors}");
    }
    // What a whole table holds is said above its columns.
    assert!(errors.contains("One row per raw event."), "{errors}");
    assert!(errors.contains("table `user_features` not found"), "{errors}");
    assert_eq!(code, Some(2), "a command of the script failed");
}

#[test]
fn rows_are_printed_as_asked_and_errors_keep_the_prompt() {
    let lines = "\\timing\n\\x\nSELECT 1 AS a,\n  'two' AS b;\n\\x\nSELECT 3 AS c;\n\\d demnd\n\\nothing\nSELECT nope;\nSELECT 'it;' -- it;\n AS e; -- done\nSELECT 4 AS d";
    let (printed, errors, code) = typed(lines);
    assert_eq!(code, Some(2), "a script whose statement failed is not done");
    assert!(printed.starts_with("-[ row 1 ]\na | 1\nb | two\n+---+\n| c |\n"), "{printed}");
    assert!(printed.ends_with("| 4 |\n+---+\n"), "{printed}");
    for part in [
        "timing: on",
        "time: 0.",
        "expanded: on",
        "expanded: off",
        "did you mean `demand`?",
        "\\nothing: no such command",
        "nope",
    ] {
        assert!(errors.contains(part), "{part}\n{errors}");
    }
}

#[test]
fn errors_point_at_the_place() {
    let lines =
        "SELECT 1 AS a,\n  nope FROM runs;\nSELECT count(*) FORM runs;\nSELECT * FROM rusn;\nSELECT lenth('a');\n";
    let (_, errors, _) = typed(lines);
    for part in [
        "  line 2:   nope FROM runs;\n            ^\n",
        "  SELECT count(*) FORM runs;\n                       ^\n",
        "did you mean `runs`?\n  SELECT * FROM rusn;\n                ^\n",
        "  SELECT lenth('a');\n         ^\n",
    ] {
        assert!(errors.contains(part), "{part}\n{errors}");
    }
}

/// Returns the shell on a pseudo-terminal, which writes what a terminal shows to standard output.
fn shell_at_terminal(settings: &str, output: &Path) -> Command {
    let binary = env!("CARGO_BIN_EXE_intentcast");
    let mut terminal = Command::new("script");
    // A shell in between would get Ctrl-C too, and some end by it.
    let command = format!("exec {binary} {settings} sql --output {}", output.display());
    terminal.args(["-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    terminal
}

#[test]
fn statements_are_remembered_from_session_to_session() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let type_at_terminal = |lines: &str, settings: &str| {
        let mut terminal = shell_at_terminal(settings, folder.path()).env("XDG_STATE_HOME", &state).spawn().unwrap();
        terminal.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        let done = terminal.wait_with_output().unwrap();
        let shown = String::from_utf8(done.stdout).unwrap();
        assert!(done.status.success(), "{shown}");
        shown
    };
    type_at_terminal("SELECT 41 + 1 AS answer;\n\\q\n", "");
    let file = state.join("intentcast/sql_history");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("SELECT 41 + 1 AS answer;"), "{kept}");
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o77, 0, "statements can name customers");
    // Arrow up twice: over the command that ended the session before.
    let shown = type_at_terminal("\x1b[A\x1b[A\n\\q\n", "");
    assert!(shown.contains("| 42 "), "{shown}");
    type_at_terminal("SELECT 'secret';\n\\q\n", "--set sql.history_file=none");
    assert!(!std::fs::read_to_string(&file).unwrap().contains("secret"));
}

#[test]
fn tab_completes_the_names_that_there_are() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = shell_at_terminal("--set sql.history_file=none", folder.path()).spawn().unwrap();
    // A column, a table and a function, each by its beginning. What is typed before the next prompt opens is lost.
    let keys = b"SELECT order_quan\t FROM replenishment_h\t; -- score_int\t\n";
    terminal.stdin.take().unwrap().write_all(keys).unwrap();
    let done = terminal.wait_with_output().unwrap();
    let shown = String::from_utf8(done.stdout).unwrap();
    let header = "| order_quantity |";
    assert!(shown.contains(header) && shown.contains("score_intents("), "{shown}");
}

#[test]
fn ctrl_c_cancels_the_query_and_keeps_the_prompt() {
    let folder = tempfile::tempdir().unwrap();
    let mut terminal = shell_at_terminal("--set sql.history_file=none", folder.path()).spawn().unwrap();
    let mut keys = terminal.stdin.take().unwrap();
    let mut shown = terminal.stdout.take().unwrap();
    let (sender, parts) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = shown.read(&mut bytes) {
            sender.send(String::from_utf8_lossy(&bytes[..count]).into_owned()).ok();
        }
    });
    let shows = |text: &str, seconds: u64| {
        let (mut read, end) = (String::new(), Instant::now() + Duration::from_secs(seconds));
        while !read.contains(text) {
            match parts.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(part) => read += &part,
                Err(_) => return false,
            }
        }
        true
    };
    assert!(shows("intentcast> ", 120));
    // It would take hours.
    keys.write_all(b"SELECT sum(a.value % b.value) FROM range(1, 1000000) AS a, range(1, 1000000000) AS b;\n").unwrap();
    // On a busy machine the first keys may come before the query begins.
    let is_cancelled = (0..20).any(|_| {
        std::thread::sleep(Duration::from_secs(2));
        keys.write_all(b"\x03").unwrap();
        shows("cancelled", 10)
    });
    assert!(is_cancelled);
    keys.write_all(b"SELECT 41 + 1 AS answer;\n").unwrap();
    assert!(shows("| 42 ", 120));
    keys.write_all(b"\\q\n").unwrap();
    assert!(terminal.wait().unwrap().success());
}

#[test]
fn output_that_closes_early_is_no_bug() {
    let output = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_intentcast");
    let ends = |arguments: &str| {
        let script = format!("{binary} {arguments}; echo $?");
        let ran = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(ran.stdout).unwrap().lines().last().map(String::from)
    };
    let folder = output.path().display();
    assert_eq!(ends("doctor > /dev/full 2>&1").as_deref(), Some("75"));
    assert_eq!(ends(&format!("check --output {folder} 2> /dev/full")).as_deref(), Some("4"));
    let piped = format!("{binary} doctor | true; echo ${{PIPESTATUS[0]}}");
    let ran = Command::new("bash").args(["-c", &piped]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "0\n");
}

#[test]
fn a_file_of_statements_runs_and_names_itself_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("two.sql");
    let file = file.to_str().unwrap();
    let run = |text: &str| {
        std::fs::write(file, text).unwrap();
        intentcast(&["sql", "--output", folder.path().to_str().unwrap(), "--format", "csv", "-f", file])
    };
    let done = run("-- two statements\nSELECT 1 AS a;\nSELECT 2 AS b;\n");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "a\n1\nb\n2\n");
    let failed = run("SELECT FROM WHERE");
    let errors = String::from_utf8_lossy(&failed.stderr);
    assert_eq!(failed.status.code(), Some(2), "{errors}");
    assert!(errors.contains("two.sql"), "{errors}");
    let missing = intentcast(&["sql", "-f", "/no/such.sql"]);
    assert_eq!(missing.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/no/such.sql"));
}
