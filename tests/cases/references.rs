//! Files that are generated from the code: docs/reference/, jobs/nightly.toml, three checks below sql/checks/. These tests render
//! them again and compare; `make docs` writes them.

use clap::{Command, CommandFactory};
use intentcast::commands::Cli;
use intentcast::config::render;
use std::fmt::Write;
use std::path::Path;

/// Compares the committed file with the rendered one. `make docs` writes the file first.
fn check(file: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    #[allow(clippy::disallowed_methods)] // a switch of the test, no setting of the program
    let write = std::env::var_os("INTENTCAST_WRITE_DOCS").is_some();
    if write {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, made).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(made.lines()).find(|(a, b)| a != b);
    assert!(committed == made, "{file} is not what the code says: {differs:?}\nhint: run `make docs`");
}

#[test]
fn the_settings_file_and_its_reference_are_generated() {
    check("jobs/nightly.toml", &render::nightly_toml().unwrap());
    check("docs/reference/configuration.md", &render::markdown().unwrap());
}

#[test]
fn the_table_reference_names_every_column_and_what_it_means() {
    check("docs/reference/tables.md", &intentcast::tables::reference::markdown().unwrap());
}

#[test]
fn generated_checks_follow_from_the_declarations() {
    check("sql/checks/keys.sql", &intentcast::tables::generated_checks::keys_sql());
    check("sql/checks/values.sql", &intentcast::tables::generated_checks::values_sql());
    check("sql/checks/probabilities.sql", &intentcast::tables::generated_checks::probabilities_sql());
}

#[test]
fn the_readme_names_every_published_table() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    for spec in intentcast::tables::schemas::specs() {
        assert!(readme.contains(&format!("| `{}` |", spec.name)), "README.md does not list the table {}", spec.name);
    }
}

#[test]
fn the_command_line_reference_is_the_help_of_every_verb() {
    let mut command = Cli::command();
    command.build();
    let mut made = String::from("# Command line\n\nMade from src/commands/ by `make docs`; a test compares them.\n");
    describe(&mut made, &command);
    made.push_str(
        "\n## Exit codes\n\nThe table is in the [README](../../README.md); src/failure.rs is where they are made.\n",
    );
    check("docs/reference/command-line.md", &made);
}

fn describe(made: &mut String, command: &Command) {
    let name = command.get_bin_name().unwrap_or(command.get_name());
    let help = command.clone().render_long_help().to_string();
    let help: Vec<&str> = help.lines().map(str::trim_end).collect();
    write!(made, "\n## {name}\n\n```text\n{}\n```\n", help.join("\n").trim_end()).unwrap();
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help" && !verb.is_hide_set()) {
        describe(made, verb);
    }
}

#[test]
fn docs_sql_lists_every_function() {
    use datafusion::prelude::SessionContext;
    use intentcast::config::Config;
    use intentcast::score::models::{ContentWrites, Models};
    use intentcast::score::operator;
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sql.md")).unwrap();
    let plain = SessionContext::new();
    let config = Config::default();
    let ours =
        operator::install(&plain, std::sync::Arc::new(Models::new(&config).unwrap()), ContentWrites::SessionOnly);
    intentcast::features::functions::register(&ours, &config, "2026-03-01".parse().unwrap()).unwrap();
    let names = |ctx: &SessionContext| -> std::collections::BTreeSet<String> {
        let state = ctx.state();
        state.scalar_functions().keys().chain(state.aggregate_functions().keys()).cloned().collect()
    };
    let missing: Vec<String> =
        names(&ours).difference(&names(&plain)).filter(|name| !text.contains(&format!("`{name}("))).cloned().collect();
    assert!(names(&ours).contains("embed_image"));
    assert!(missing.is_empty(), "docs/sql.md lacks {missing:?}");
}
