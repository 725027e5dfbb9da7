//! Compares texts with the approved ones in `tests/approved/`.

/// Compares a text with the approved one; if they differ, writes `<name>.received.txt` next to it and fails.
pub fn approve(name: &str, received: &str) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/approved");
    let approved = std::fs::read_to_string(folder.join(format!("{name}.txt"))).unwrap_or_default();
    if approved.trim() != received.trim() {
        std::fs::write(folder.join(format!("{name}.received.txt")), received).unwrap();
        panic!(
            "{name}: not the approved text; if the change is meant, rename tests/approved/{name}.received.txt to {name}.txt\n\
             --- approved\n{approved}\n--- received\n{received}"
        );
    }
}
