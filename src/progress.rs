//! Progress bars on a terminal; elsewhere the log has a line for each step.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Makes a bar of `len` steps, drawn on standard error where that is a terminal. It clears itself when dropped unfinished.
pub(crate) fn bar(what: &str, len: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {elapsed} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(what.to_string());
    bar
}
