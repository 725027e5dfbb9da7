//! Looks for persons in what the binary logs: it may name none that its caller did not name.

/// Fails where a log holds the id of a simulated person (`u0000001`, `g0000001`) that the arguments don't have.
pub fn refuse_persons(arguments: &[&str], log: &str) {
    let words = log.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_');
    for word in words.filter(|word| is_id(word)) {
        assert!(arguments.iter().any(|argument| argument.contains(word)), "{arguments:?} logged {word}\n{log}");
    }
}

fn is_id(word: &str) -> bool {
    word.len() == 8 && word.starts_with(['u', 'g']) && word[1..].bytes().all(|byte| byte.is_ascii_digit())
}
