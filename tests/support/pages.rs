//! Pages of the documentation: their fenced blocks, and a run of the marked ones.
//!
//! A comment before a block says what to do with it: `<!-- run -->`, or `<!-- file: NAME -->` for a file to write.

use std::fs;
use std::path::Path;
use std::process::Command;

/// A fenced block of a document.
pub struct Block {
    /// The comment before it, such as `run`; empty without one.
    pub mark: String,
    pub text: String,
}

/// Returns the fenced blocks of a document, in order.
pub fn blocks(document: &str) -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{document}: {e}"));
    let (mut found, mut mark, mut open): (Vec<Block>, String, Option<Block>) = (Vec::new(), String::new(), None);
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(block) = open.as_mut() {
            if trimmed.starts_with("```") {
                found.extend(open.take());
            } else {
                block.text += &format!("{line}\n");
            }
        } else if trimmed.starts_with("```") {
            open = Some(Block { mark: std::mem::take(&mut mark), text: String::new() });
        } else if let Some(comment) = trimmed.strip_prefix("<!-- ") {
            mark = comment.trim_end_matches(" -->").into();
        } else if !trimmed.is_empty() {
            mark.clear();
        }
    }
    assert!(open.is_none(), "{document}: a code block is not closed");
    found
}

/// Runs shell commands in a folder, with the binary under test on the path. Returns standard output.
fn run(folder: &Path, commands: &str) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_intentcast"));
    let shell = format!("export PATH=\"{}:$PATH\"\nset -euo pipefail\n{commands}", binary.parent().unwrap().display());
    let output = Command::new("bash")
        .args(["-c", &shell])
        .current_dir(folder)
        // It would be taken for a setting.
        .env_remove("INTENTCAST_WRITE_DOCS")
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{commands}\nended with {:?}\n{errors}", output.status.code());
    String::from_utf8(output.stdout).unwrap()
}

/// Follows the marked blocks of a document in a folder. `fill` replaces its placeholders. Returns what each block printed.
pub fn follow(document: &str, folder: &Path, fill: impl Fn(&str) -> String) -> Vec<String> {
    let mut printed = Vec::new();
    for block in blocks(document) {
        if block.mark == "run" {
            printed.push(run(folder, &fill(&block.text)));
        } else if let Some(name) = block.mark.strip_prefix("file: ") {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &block.text).unwrap();
        }
    }
    assert!(!printed.is_empty(), "{document}: no block is marked");
    printed
}

/// Runs the sessions of a document: blocks that `session: PROGRAM` marks, each followed by a block of what it prints. `run` gets
/// program and text and returns the output. With `INTENTCAST_WRITE_DOCS` the outputs are written into the document; otherwise they
/// are compared, but for digits and the width of columns, which follow from the machine that trained the model.
pub fn check_sessions(document: &str, run: impl Fn(&str, &str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let mut text = fs::read_to_string(&path).unwrap();
    let all = blocks(document);
    let sessions = all.iter().zip(&all[1..]).filter_map(|(session, shown)| {
        session.mark.strip_prefix("session: ").map(|program| (program, &session.text, &shown.text))
    });
    #[allow(clippy::disallowed_methods)] // not a setting of the product
    let writes = std::env::var_os("INTENTCAST_WRITE_DOCS").is_some();
    let (mut checked, mut from) = (0, 0);
    for (program, session, shown) in sessions {
        let printed: String = run(program, session).lines().map(|line| format!("{}\n", line.trim_end())).collect();
        let printed = printed.trim_end().to_string() + "\n";
        if writes {
            let begins = from + text[from..].find(session.as_str()).unwrap() + session.len();
            let begins = begins + text[begins..].find("```text\n").unwrap() + "```text\n".len();
            text.replace_range(begins..begins + shown.len(), &printed);
            from = begins + printed.len();
        } else {
            assert_eq!(without_figures(&printed), without_figures(shown), "{document}: {session}\n{printed}");
        }
        checked += 1;
    }
    assert!(checked > 0, "{document}: no block is marked");
    if writes {
        fs::write(path, text).unwrap();
    }
}

/// Replaces each number by `#`, and each run of blanks or of hyphens by one.
fn without_figures(text: &str) -> String {
    let mut made = String::new();
    for c in text.chars() {
        let c = if c.is_ascii_digit() { '#' } else { c };
        let repeats = made.ends_with(c) && "# -".contains(c);
        if !repeats {
            made.push(c);
        }
    }
    // An exponent, and a number without decimals.
    made.replace("e-#", "").replace("#.#", "#").replace("-#", "#")
}
