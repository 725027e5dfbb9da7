//! The alarm for a night that did not come, and the explanation of one that did.

use serde_json::Value;
use std::fs;

use crate::support::shop::{done, night, refused, shop};

const NIGHT: &str = "2026-02-21";
const EARLIER: &str = "2026-02-20";

#[test]
fn an_old_or_missing_night_is_an_alarm() {
    let (own, lake, output) = shop();
    let file = own.path().join("intentcast.prom");
    let prometheus = ["--prometheus", file.to_str().unwrap()];
    let check =
        |arguments: &[&'static str]| [&["check", "--output", &output][..], arguments, &prometheus].concat().to_vec();
    let errors = refused(&check(&[]), 4);
    assert!(errors.contains("no night is visible"), "{errors}");
    assert!(fs::read_to_string(&file).unwrap().contains("intentcast_night_fresh{output="));

    night(&lake, &output, NIGHT);
    let printed = done(&check(&[]));
    assert_eq!(printed.lines().count(), 1, "{printed}");
    assert!(printed.contains(&format!("night {NIGHT}: published")) && printed.contains("within 1day 2h"), "{printed}");
    let metrics = fs::read_to_string(&file).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o644, "the collector is another user");
    assert!(metrics.contains("/\"} 1\n") && metrics.contains("\nintentcast_night_rows_read{"), "{metrics}");
    // 2026-02-21T00:00:00Z
    assert!(
        metrics.lines().any(|l| l.starts_with("intentcast_night_run_date_seconds{") && l.ends_with(" 1771632000")),
        "{metrics}"
    );
    let errors = refused(&check(&["--max-age", "0s"]), 4);
    assert_eq!(errors.lines().filter(|line| !line.contains("INFO")).count(), 1, "{errors}");
    assert!(errors.contains("expected at most 0s"), "{errors}");
    refused(&check(&["--max-age", "soon"]), 2);
    let errors = refused(&["check", "--output", &output, "--prometheus", "/no/such/folder/file"], 2);
    assert!(errors.contains("/no/such/folder/file"), "{errors}");
}

#[test]
fn a_night_is_explained_next_to_the_one_before() {
    let (_own, lake, output) = shop();
    let errors = refused(&["why", "--output", &output], 2);
    assert!(errors.contains("no night is visible"), "{errors}");
    night(&lake, &output, EARLIER);
    night(&lake, &output, NIGHT);
    let printed = done(&["why", "--output", &output, "--format", "json"]);
    let facts: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fact =
        |name: &str| facts.iter().find(|fact| fact["fact"] == name).unwrap_or_else(|| panic!("{name}\n{printed}"));
    assert_eq!((&fact("run date")["night"], &fact("run date")["night_before"]), (&NIGHT.into(), &EARLIER.into()));
    assert_eq!(fact("version")["change"], Value::Null, "one model scored both");
    for (about, changed) in [("input", "changed"), ("sql", "")] {
        let found = facts.iter().find(|fact| fact["about"] == about && fact["fact"] == "fingerprint").unwrap();
        assert_eq!(found["change"].as_str().unwrap_or_default(), changed, "{about}");
    }
    let number = |name: &str| fact(name)["night"].as_str().unwrap().parse::<f64>().unwrap();
    for name in [
        "event rows read",
        "all stages",
        "users scored",
        "mean p_purchase",
        "items with a forecast",
        "expected units, first 7 days",
    ] {
        assert!(number(name) > 0.0, "{name}\n{printed}");
    }
    assert!(facts.iter().any(|fact| fact["fact"].as_str().unwrap().starts_with("bad rows: ")), "{printed}");

    assert_eq!(fact("run date")["change"], Value::Null, "it differs every night");
    assert!(number("features that have shifted since training") >= 0.0);
    let first = done(&["why", "--output", &output, "--date", EARLIER]);
    assert!(first.contains(EARLIER) && !first.contains(NIGHT) && !first.contains("changed"), "{first}");
    let errors = refused(&["why", "--output", &output, "--date", "2026-02-01"], 2);
    assert!(errors.contains("night 2026-02-01: not visible") && errors.contains(NIGHT), "{errors}");
}
