//! Persons are forgotten: nowhere below the output, in no answer and no later night, while all others stay as they were.

use serde_json::json;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::s3::Action;
use crate::support::server::{Server, clients_are_here};
use crate::support::shop::{QUICK, contents, done, night, query, refused, run_column, shop, upload};

const FIRST: &str = "2026-02-20";
const SECOND: &str = "2026-02-21";
const THIRD: &str = "2026-02-22";

/// Returns a login with intents, and a guest who became it.
fn stitched_person(lake: &str, output: &str) -> (String, String) {
    let sql = "SELECT s.canonical_user_id, min(s.user_id) FROM stitched AS s JOIN intent AS i ON i.user_id = s.canonical_user_id \
               JOIN recommendation AS r ON r.user_id = i.user_id JOIN unit_event AS e ON e.user_id = s.user_id \
               GROUP BY s.canonical_user_id ORDER BY 1 LIMIT 1";
    let printed = done(&["sql", "--lake", lake, "--output", output, "--format", "csv", "-c", sql]);
    let (login, guest) = printed.lines().nth(1).unwrap().split_once(',').unwrap();
    (login.into(), guest.into())
}

/// Returns the rows of all other users and of the totals, in all visible nights.
fn others(output: &str, erased: &[&str]) -> [String; 4] {
    let erased = erased.iter().map(|id| format!("'{id}'")).collect::<Vec<_>>().join(", ");
    [
        format!("SELECT * FROM intent_history WHERE user_id NOT IN ({erased}) ORDER BY run_date, user_id"),
        format!(
            "SELECT * FROM recommendation_history WHERE user_id NOT IN ({erased}) ORDER BY run_date, user_id, rank"
        ),
        "SELECT * FROM demand_history ORDER BY run_date, item_id, target_date".into(),
        "SELECT * FROM segment_history ORDER BY run_date, segment".into(),
    ]
    .map(|sql| query(output, &sql))
}

/// Returns the files below the output whose bytes, as far as they are plain, name an id.
fn plain_mentions(output: &str, id: &str) -> String {
    let found = Command::new("grep").args(["-rlaw", id, output]).output().unwrap();
    String::from_utf8(found.stdout).unwrap()
}

fn erase(lake: &str, output: &str, arguments: &[&str]) -> String {
    done(&[&["erase", "--lake", lake, "--output", output], arguments].concat())
}

#[test]
fn an_erased_person_is_nowhere_and_all_others_stay() {
    let (_own, lake, output) = shop();
    night(&lake, &output, FIRST);
    night(&lake, &output, SECOND);
    let (login, guest) = stitched_person(&lake, &output);
    // The bounds that a table's log has of its files name this one.
    let first = query(&output, "SELECT min(user_id) FROM intent").lines().nth(1).unwrap().to_string();
    let erased = [login.as_str(), guest.as_str(), first.as_str()];
    let before = others(&output, &erased);
    let published = "SELECT run_date, max(made_visible_at) FROM runs GROUP BY run_date ORDER BY run_date";
    let published_at = query(&output, published);
    let server = Server::start(&[], &["--output", &output]);
    let ask = |run_date: &str| server.get(&format!("/v1/users/{login}/intents?run_date={run_date}")).0;
    assert_eq!([FIRST, SECOND].map(ask), [200, 200]);

    // The guest is named, and the person is meant.
    let files = contents(&output);
    let planned = erase(&lake, &output, &["--user", &guest, "--user", &first, "--dry-run", "--prove"]);
    assert!(planned.contains(&login) && planned.contains(&guest) && planned.contains("would go from rollup units: "));
    for place in ["/tables/intent/run_date=", "/tables/intent/_delta_log/", "/state/rollups/", "/state/features/"] {
        assert!(planned.contains(place), "{place}\n{planned}");
    }
    assert_eq!(contents(&output), files, "a dry run changes nothing");

    let printed = erase(&lake, &output, &["--user", &guest, "--user", &first, "--prove"]);
    assert!(printed.contains("\n0 files hold one of the ids"), "{printed}");
    assert!(!printed.contains("gone from tables and their history: 0 rows"), "{printed}");
    assert!(printed.contains("models that were trained"), "{printed}");
    for id in erased {
        assert_eq!(plain_mentions(&output, id), "");
    }
    assert_eq!(others(&output, &erased), before, "no other row changes");
    for table in ["intent_history", "recommendation_history"] {
        let left =
            query(&output, &format!("SELECT count(*) FROM {table} WHERE user_id IN ('{login}', '{guest}', '{first}')"));
        assert_eq!(left.lines().nth(1), Some("0"), "{table}");
    }
    assert_eq!(query(&output, "SELECT count(*) FROM erasure WHERE gone_at IS NOT NULL").lines().nth(1), Some("3"));
    let kinds = query(&output, "SELECT kind, count(*) FROM runs GROUP BY kind ORDER BY kind");
    assert_eq!(kinds.lines().skip(1).collect::<Vec<_>>(), ["erase,2", "night,2"]);
    assert_eq!(query(&output, published), published_at, "no night is younger than before");
    let started = Instant::now();
    while ask(SECOND) != 404 {
        assert!(started.elapsed() < Duration::from_secs(60), "{}", server.errors());
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(ask(FIRST), 404, "nor in an earlier night");
    if clients_are_here("an_erased_person_is_nowhere_and_all_others_stay") {
        let left = format!("SELECT count(*) FROM intent WHERE user_id IN ('{login}', '{guest}', '{first}')");
        let total = |run_date: &str| {
            let sql = format!("SET intentcast.run_date = '{run_date}'; {left}; SELECT count(*) > 0 FROM intent");
            server.rows(&sql).split_off(1)
        };
        for night in [FIRST, SECOND] {
            assert_eq!(total(night), ["0", "t"], "{night}");
        }
        let history = server.rows(&left.replace("FROM intent", "FROM intent_history"));
        assert_eq!(history, ["0"]);
    }
    drop(server);

    // Once more: nothing is left to do.
    let files = contents(&output);
    let again = erase(&lake, &output, &["--user", &guest, "--user", &first]);
    assert!(again.contains("no file has a row of these ids"), "{again}");
    let changed = |name: &&String| !name.contains("/state/lock/") && !name.contains("/state/erasure/");
    let names = |files: &std::collections::BTreeMap<String, String>| {
        files.iter().filter(|(name, _)| changed(name)).map(|(n, h)| (n.clone(), h.clone())).collect::<Vec<_>>()
    };
    assert_eq!(names(&contents(&output)), names(&files));

    // The lake still has the person: a night of it, whose units are all built again, has not.
    std::fs::remove_dir_all(format!("{output}/state/rollups")).unwrap();
    night(&lake, &output, THIRD);
    let dropped = run_column(&output, "quarantined_by_reason", THIRD);
    assert!(dropped["erased_user"].as_u64() > Some(0), "{dropped}");
    let counted = query(&output, "SELECT count(*) FROM quarantine WHERE reason = 'erased_user'");
    assert_eq!(counted.lines().nth(1), Some("0"), "the rows are counted and not kept");
    let proof = erase(&lake, &output, &["--user", &login, "--dry-run", "--prove"]);
    assert!(proof.ends_with("\n0 files hold one of the ids\n"), "{proof}");
    assert_eq!(
        query(&output, &format!("SELECT count(*) FROM intent WHERE user_id = '{login}'")).lines().nth(1),
        Some("0")
    );
    // The model learnt from days of the person.
    let strict =
        ["--set", "erase.retrain=refuse", "nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-23"];
    assert!(refused(&strict, 6).contains("erased since"));
    // Nor does what a rollback shows.
    done(&["rollback", "--output", &output, "--date", THIRD]);
    assert_eq!(others(&output, &erased), before);
}

#[test]
fn an_interrupted_erasure_is_finished_by_the_same_command() {
    let (_own, lake, output) = shop();
    night(&lake, &output, FIRST);
    let (login, guest) = stitched_person(&lake, &output);
    let before = others(&output, &[&login, &guest]);
    let kept = tempfile::tempdir().unwrap();
    crate::support::lakes::copy(std::path::Path::new(&output), &kept.path().join("out"));
    let quick = ["--set", "lock.heartbeat_seconds=1", "--set", "lock.expiry_seconds=2"];
    let arguments = ["erase", "--lake", &lake, "--output", &output, "--user", &guest];
    for milliseconds in [150, 600, 1200, 2000] {
        std::fs::remove_dir_all(&output).unwrap();
        crate::support::lakes::copy(&kept.path().join("out"), std::path::Path::new(&output));
        let mut process = Command::new(env!("CARGO_BIN_EXE_intentcast"))
            .args(QUICK)
            .args(quick)
            .args(arguments)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        process.kill().unwrap();
        process.wait().unwrap();
        // Readers see whole nights meanwhile, with or without the person.
        assert_eq!(others(&output, &[&login, &guest]), before, "killed after {milliseconds} ms");
        std::thread::sleep(Duration::from_millis(2100));
        let printed = done(&[&quick, &arguments[..], &["--prove"]].concat());
        assert!(printed.contains("\n0 files hold one of the ids"), "killed after {milliseconds} ms\n{printed}");
        assert_eq!(others(&output, &[&login, &guest]), before, "killed after {milliseconds} ms");
        assert_eq!(query(&output, "SELECT count(*) FROM erasure").lines().nth(1), Some("2"));
    }
}

#[test]
fn what_cannot_be_erased_is_said() {
    let (own, lake, output) = shop();
    night(&lake, &output, FIRST);
    let (login, _) = stitched_person(&lake, &output);
    let files = contents(&output);
    let places = ["erase", "--lake", &lake, "--output", &output];
    let refused = |arguments: &[&str], code: i32| refused(&[&places, arguments].concat(), code);
    assert!(refused(&[], 2).contains("--user"));
    assert!(refused(&["--user", " "], 2).contains("expected an id"));
    assert!(refused(&["--file", "no/such/file"], 2).contains("no/such/file"));
    let empty = own.path().join("empty.txt");
    std::fs::write(&empty, "\u{feff}\r\n\r\n").unwrap();
    assert!(refused(&["--file", empty.to_str().unwrap()], 2).contains("expected an id per line"));
    let large =
        crate::support::shop::refused(&[&["--set", "erase.group_max=1"], &places[..], &["--user", &login]].concat(), 2);
    assert!(large.contains("erase.group_max") && large.contains("--group"), "{large}");
    assert_eq!(contents(&output), files, "a refusal changes nothing");

    // Someone who was never here, a part of an id, and an id that only an item has.
    let item = query(&output, "SELECT min(item_id) FROM demand").lines().nth(1).unwrap().to_string();
    let before = others(&output, &["u9999999"]);
    let file = own.path().join("ids.csv");
    let items = format!("{item}\r\n").repeat(1_000_000);
    std::fs::write(&file, format!("\u{feff}\"u9999999\"\r\n{}\r\n\r\n{items}", &login[..login.len() - 1])).unwrap();
    let printed = erase(&lake, &output, &["--file", file.to_str().unwrap()]);
    assert!(printed.starts_with("erased 3 ids: ") && printed.contains("no file has a row"), "{printed}");
    assert_eq!(others(&output, &["u9999999"]), before);

    // A generation that an erasure of others leaves behind is neither shown again nor in the way of gc.
    let top_k = ["--set", "recommendation.top_k=5", "nightly", "--lake", &lake, "--output", &output, "--date", FIRST];
    assert!(done(&top_k).contains("generation"));
    erase(&lake, &output, &["--user", "u8888888"]);
    done(&["gc", "--output", &output]);
    assert!(done(&["rollback", "--output", &output, "--date", FIRST]).contains("no night is visible"));
    done(&["gc", "--output", &output]);

    // A night that runs is not disturbed.
    let lock = format!("{output}/state/lock/{SECOND}");
    std::fs::create_dir_all(&lock).unwrap();
    let owner = json!({"host": "elsewhere", "pid": 1, "uuid": "x", "started_at": "2026-02-21T00:00:00Z"});
    std::fs::write(format!("{lock}/1.json"), owner.to_string()).unwrap();
    assert!(refused(&["--user", &login], 5).contains(SECOND));
}

#[test]
fn nights_go_on_after_a_lake_was_rewritten() {
    let (_own, lake, output) = shop();
    night(&lake, &output, FIRST);
    let (login, guest) = stitched_person(&lake, &output);
    let printed = erase(&lake, &output, &["--user", &login, "--rewrite-lake", "--prove"]);
    assert!(printed.contains("\n0 files hold one of the ids"), "{printed}");
    assert!(!printed.contains("gone from the lake: 0 rows"), "{printed}");

    // A night finds fewer rows than the one before, and knows why.
    let record = format!("{output}/state/erasure/people.json");
    let text = std::fs::read_to_string(&record).unwrap();
    let mut unknown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(!unknown["lake_events"].as_object().unwrap().is_empty());
    unknown["lake_events"] = json!({});
    std::fs::write(&record, unknown.to_string()).unwrap();
    let second = ["nightly", "--lake", &lake, "--output", &output, "--date", SECOND];
    assert!(refused(&second, 4).contains("a file may have been replaced or removed"));
    std::fs::write(&record, text).unwrap();
    // Units follow the files that they were made from, so that a night reads new files alone.
    let report = night(&lake, &output, SECOND);
    let read = |name: &str| report["read"][name].as_u64().unwrap();
    assert!(read("units_kept") > 0 && read("files_skipped") > 20 && read("files_read") < 5, "{}", report["read"]);
    // It has counted them as a night does that builds all of them again, so later nights have nothing to forgive.
    std::fs::remove_dir_all(format!("{output}/state/rollups")).unwrap();
    std::fs::write(&record, unknown.to_string()).unwrap();
    done(&["nightly", "--lake", &lake, "--output", &output, "--date", THIRD]);
    let fewer = format!(
        "SELECT count(*) FROM tables.lake_day_history AS before JOIN tables.lake_day_history AS after \
         ON before.day = after.day AND before.run_date = DATE '{SECOND}' AND after.run_date = DATE '{THIRD}' \
         WHERE before.rows_read < after.rows_read AND before.day < DATE '{FIRST}'"
    );
    let fewer = done(&["sql", "--lake", &lake, "--output", &output, "--format", "csv", "-c", &fewer]);
    assert_eq!(fewer.lines().nth(1), Some("0"));
    let dropped = run_column(&output, "quarantined_by_reason", THIRD);
    assert_eq!(dropped["erased_user"].as_u64().unwrap_or_default(), 0, "the lake has no row of the person: {dropped}");
    let left = format!("SELECT count(*) FROM raw_events WHERE user_id IN ('{login}', '{guest}')");
    let left = done(&["sql", "--lake", &lake, "--output", &output, "--format", "csv", "-c", &left]);
    assert_eq!(left.lines().nth(1), Some("0"));
}

#[test]
fn a_full_disk_or_a_refused_deletion_only_delays_an_erasure() {
    let (_own, lake, output) = shop();
    night(&lake, &output, FIRST);
    let (login, guest) = stitched_person(&lake, &output);
    let server = upload(&lake, &output);
    let erased = [login.as_str(), guest.as_str()];
    let before = others(&output, &erased);
    let person = format!("SELECT count(*) FROM intent WHERE user_id = '{login}'");

    // Files beyond a size fail to be written, as all do on a full disk.
    let arguments = ["erase", "--lake", &lake, "--output", &output, "--user", &login, "--rewrite-lake"];
    for kilobytes in [1, 16, 64] {
        let limited = format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", 2 * kilobytes);
        let mut command = Command::new("sh");
        command.args(["-c", &limited, env!("CARGO_BIN_EXE_intentcast")]).args(QUICK).args(arguments);
        let ended = command.output().unwrap();
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(75), "{kilobytes} KB\n{errors}");
        assert!(errors.contains("File too large"), "{errors}");
        assert_eq!(others(&output, &erased), before, "{kilobytes} KB");
    }
    let printed = done(&[&arguments[..], &["--prove"]].concat());
    assert!(printed.contains("\n0 files hold one of the ids"), "{printed}");
    assert_eq!(others(&output, &erased), before);

    let flags = server.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let erase = ["erase", "--lake", "s3://shop/lake", "--output", "s3://shop/out", "--user", &login, "--prove"];
    let erase = [&flags, &erase[..]].concat();
    server.deny(Action::Delete, "shop/out/");
    let said = refused(&erase, 2);
    assert!(said.contains("store refused access") && said.contains("out/state/"), "{said}");
    // No reader sees the person any more.
    let read = [&flags, &["sql", "--output", "s3://shop/out", "--format", "csv", "-c", &person][..]].concat();
    assert_eq!(done(&read).lines().nth(1), Some("0"));
    server.deny(Action::Delete, "none");
    assert!(done(&erase).contains("\n0 files hold one of the ids"));
}
