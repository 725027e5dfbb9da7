//! Looks for persons in what the binary logs: it may name none that its caller did not name.

/// Fails where a log holds the id of a simulated person (`u0000001`, `g0000001`) that the arguments don't have.
pub fn refuse_persons(arguments: &[&str], log: &str) {
    for person in persons(log) {
        assert!(arguments.iter().any(|argument| argument.contains(person)), "{arguments:?} logged {person}\n{log}");
    }
}

/// The ids of simulated persons in a text.
pub fn persons(text: &str) -> impl Iterator<Item = &str> {
    text.split(|sign: char| !sign.is_ascii_alphanumeric() && sign != '_').filter(|word| is_id(word))
}

fn is_id(word: &str) -> bool {
    word.len() == 8 && word.starts_with(['u', 'g']) && word[1..].bytes().all(|byte| byte.is_ascii_digit())
}
