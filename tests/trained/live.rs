//! One user's intents with new events, compared with what the night after these events publishes.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::clients;
use crate::support::server::{Server, clients_are_here};
use crate::support::shop::{challenger, done, night, query, shop, shop_with_a_night};

/// The night that the server shows, and the one after it.
const NIGHT: &str = "2026-02-21";
const NEXT: &str = "2026-02-22";

/// A feature that an analyst changed: an event without a session id is a session of its own.
const USER_SESSIONS: &str = "-- one row per user_id: distinct sessions of the last 7 and 28 days
SELECT
    user_id,
    count(DISTINCT coalesce(session_id, event_key)) AS sessions_28d,
    count(DISTINCT CASE WHEN event_day >= run_date() - 7 THEN coalesce(session_id, event_key) END) AS sessions_7d
FROM user_event
WHERE event_day >= run_date() - 28
GROUP BY user_id
";

/// The events that arrived on the day of the night, by the id under which they happened.
fn arrived(lake: &str, output: &str) -> BTreeMap<String, Vec<Value>> {
    let text = |column: &str| format!("replace(replace({column}, '\"', ' '), ',', ' ') AS {column}");
    let sql = format!(
        "SELECT user_id, date_format(ts, '%Y-%m-%dT%H:%M:%S%.6fZ') AS ts, \
           date_format(arrived_at, '%Y-%m-%dT%H:%M:%S%.6fZ') AS arrived_at, event_id, session_id, event_type, item_id, \
           {}, {}, dwell_ms, quantity, price, rating \
         FROM events WHERE user_id IS NOT NULL AND event_id IS NOT NULL \
           AND coalesce(arrived_at, ts) >= TIMESTAMP '{NIGHT}' AND coalesce(arrived_at, ts) < TIMESTAMP '{NEXT}' \
         ORDER BY user_id, ts",
        text("query"),
        text("text")
    );
    let csv = done(&["sql", "--lake", lake, "--output", output, "--date", "2026-02-25", "--format", "csv", "-c", &sql]);
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    let mut events: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for line in lines {
        let mut event = serde_json::Map::new();
        for (name, cell) in names.iter().zip(line.split(',')).filter(|(_, cell)| !cell.is_empty()) {
            let value = match *name {
                "dwell_ms" | "quantity" | "rating" | "price" => serde_json::from_str(cell).unwrap_or(Value::Null),
                _ => json!(cell),
            };
            event.insert((*name).into(), value);
        }
        events.entry(event["user_id"].as_str().unwrap().into()).or_default().push(event.into());
    }
    events
}

fn published(output: &str) -> BTreeMap<String, BTreeMap<String, f64>> {
    let csv = query(
        output,
        "SELECT user_id, p_view, p_search, p_favorite, p_cart, p_purchase, p_review, p_churn, expected_units FROM intent",
    );
    let mut lines = csv.lines();
    let names: Vec<String> = lines.next().unwrap().split(',').map(String::from).collect();
    let row = |line: &str| -> (String, BTreeMap<String, f64>) {
        let mut cells = line.split(',');
        let user = cells.next().unwrap().to_string();
        (user, names[1..].iter().cloned().zip(cells.map(|cell| cell.parse().unwrap())).collect())
    };
    lines.map(row).collect()
}

#[test]
fn scores_with_new_events_are_those_of_the_night_after_them() {
    let (own, lake, output) = shop();
    let sql = own.path().join("sql");
    fs::create_dir_all(sql.join("features")).unwrap();
    fs::write(sql.join("features/user_sessions.sql"), USER_SESSIONS).unwrap();
    let overlay = format!("sql.folder={}", sql.display());
    let run_night = |date: &str| {
        done(&["--set", &overlay, "nightly", "--lake", &lake, "--output", &output, "--date", date]);
    };
    run_night(NIGHT);
    let sent = arrived(&lake, &output);
    let server = Server::start(&[&overlay], &["--lake", &lake, "--output", &output]);
    let mut answers: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (user, events) in &sent {
        let (status, answer) = server.post(&format!("/v1/users/{user}/intents"), &json!(events));
        // Some users have bad rows, which a night leaves out, or may not be scored.
        match status {
            200 => answers.entry(answer["user_id"].as_str().unwrap().into()).or_default().push(answer),
            403 | 422 => {}
            other => panic!("{user}: {other} {answer}"),
        }
    }
    assert_eq!(server.stop(), Some(0));
    run_night(NEXT);
    let published = published(&output);
    let (mut compared, mut guests) = (0, 0);
    for (login, answers) in &answers {
        // Events under two ids of one person cannot be sent at once.
        let [answer] = &answers[..] else { continue };
        if answer["run_date"] != NEXT {
            continue;
        }
        let row = published.get(login).unwrap_or_else(|| panic!("{login} is not published: {answer}"));
        for (name, expected) in row {
            let answered = answer["intents"].get(name).or(answer.get(name)).and_then(Value::as_f64).unwrap();
            assert!((answered - expected).abs() < 1e-5, "{name} of {login}: {answered}, published {expected}");
        }
        compared += 1;
        guests += i32::from(!sent.contains_key(login));
    }
    println!("{compared} users compared, {guests} of them by the id of a guest, of {}", sent.len());
    assert!(compared >= 30, "{compared} of {}", sent.len());
}

#[test]
fn live_answers_are_for_those_who_may_have_them() {
    let (_own, lake, output) = shop();
    // The newest count of the stock: every third item is sold out.
    let is_sold_out = "CAST(right(item_id, 1) AS INT) % 3 = 0";
    let sold_out = format!("SELECT item_id FROM items WHERE {is_sold_out}");
    let counted = format!(
        "COPY (SELECT * EXCEPT (as_of, on_hand), DATE '2026-03-05' AS as_of, \
         CASE WHEN {is_sold_out} THEN 0 ELSE on_hand + 1 END AS on_hand \
         FROM (SELECT DISTINCT ON (item_id) * FROM inventory ORDER BY item_id, as_of DESC)) \
         TO '{lake}/inventory/counted.parquet'"
    );
    done(&["sql", "--lake", &lake, "-c", &counted]);
    night(&lake, &output, NIGHT);
    let server = Server::start(&[], &["--lake", &lake, "--output", &output]);
    let view = |item: &str| json!([{ "ts": "2026-02-21T10:00:00Z", "event_type": "view", "item_id": item }]);
    let intents = |user: &str, events: &Value| server.post(&format!("/v1/users/{user}/intents"), events);

    // The same as stored, without an event; a first visit; the same request twice.
    let best = query(&output, "SELECT user_id, item_id FROM recommendation WHERE rank = 1 ORDER BY user_id LIMIT 1");
    let (user, item) = best.lines().nth(1).unwrap().split_once(',').unwrap();
    let (stored, now) = (server.get(&format!("/v1/users/{user}/intents")).1, intents(user, &json!([])));
    let purchase = |answer: &Value| answer["intents"]["p_purchase"].as_f64().unwrap();
    assert_eq!((now.0, &now.1["run_date"]), (200, &json!(NIGHT)), "{}", now.1);
    assert!((purchase(&stored) - purchase(&now.1)).abs() < 1e-5);
    let first = intents("never-seen", &view(item));
    assert_eq!((first.0, &first.1["run_date"], &first.1["events"]["used"]), (200, &json!(NEXT), &json!(1)));
    assert_eq!(intents("never-seen", &view(item)), first);
    assert_eq!(server.get("/v1/users/never-seen/intents").0, 404, "nothing is stored");

    // Recommendations of now are those of the night, where nothing happened since; with these events; related items.
    let of_night = format!("SELECT item_id, score FROM recommendation WHERE user_id = '{user}' ORDER BY rank LIMIT 5");
    let of_night = query(&output, &of_night);
    let recommended = server.post(&format!("/v1/users/{user}/recommendations?k=5"), &json!([])).1;
    assert_eq!((of_night.lines().count(), recommended["items"].as_array().unwrap().len()), (6, 5), "{of_night}");
    for (line, item) in of_night.lines().skip(1).zip(recommended["items"].as_array().unwrap()) {
        let (item_id, score) = line.split_once(',').unwrap();
        assert_eq!(item["item_id"], item_id, "{of_night}, now {recommended}");
        assert!(
            (item["score"].as_f64().unwrap() - score.parse::<f64>().unwrap()).abs() < 1e-4,
            "{of_night}, now {recommended}"
        );
    }
    let (status, answer) = server.post(&format!("/v1/users/{user}/recommendations?k=4"), &view(item));
    assert_eq!((status, answer["items"].as_array().unwrap().len()), (200, 4), "{answer}");
    let bought =
        json!([{ "ts": "2026-02-21T10:00:00Z", "event_type": "purchase", "item_id": answer["items"][0]["item_id"] }]);
    let again = server.post(&format!("/v1/users/{user}/recommendations?k=100"), &bought).1;
    let names = |answer: &Value| -> Vec<String> {
        answer["items"].as_array().unwrap().iter().map(|item| item["item_id"].as_str().unwrap().into()).collect()
    };
    assert!(!names(&again).contains(&names(&answer)[0]), "bought now");
    let (status, related) = server.get(&format!("/v1/items/{item}/related?k=5"));
    assert_eq!((status, names(&related).len()), (200, 5), "{related}");
    assert!(!names(&related).contains(&item.to_string()));
    let all = server.get(&format!("/v1/items/{item}/related?k=100")).1;
    let cosines: Vec<f64> =
        all["items"].as_array().unwrap().iter().map(|item| item["cosine"].as_f64().unwrap()).collect();
    assert!(cosines.is_sorted_by(|nearer, farther| nearer >= farther), "{cosines:?}");
    let sold_out = done(&["sql", "--lake", &lake, "--format", "csv", "-c", &sold_out]);
    let sold_out: Vec<&str> = sold_out.lines().skip(1).collect();
    // A customer may ask what resembles an item that is sold out.
    let known = sold_out.iter().filter(|id| server.get(&format!("/v1/items/{id}/related?k=1")).0 == 200);
    assert!(known.count() > 0, "{sold_out:?}");
    let offered = names(&all);
    assert!(!offered.is_empty() && offered.iter().all(|id| !sold_out.contains(&id.as_str())), "{sold_out:?}\n{all}");
    assert_eq!(server.get("/v1/items/no-such-item/related").0, 404);
    assert_eq!(server.get(&format!("/v1/items/{item}/related?k=0")).0, 400);
    let asked = json!({ "user_id": user, "item_ids": names(&answer), "events": view(item) });
    let (status, scores) = server.post("/v1/items/scores", &asked);
    assert_eq!(status, 200, "{scores}");
    for (ranked, scored) in answer["items"].as_array().unwrap().iter().zip(scores["items"].as_array().unwrap()) {
        let difference = ranked["score"].as_f64().unwrap() - scored["score"].as_f64().unwrap();
        assert!(difference.abs() < 1e-4, "{ranked}, {scored}");
    }

    // Those who may not be scored.
    let left_out =
        "SELECT user_id FROM users WHERE consent = false AND user_id IN (SELECT user_id FROM events) LIMIT 1";
    let left_out = done(&["sql", "--lake", &lake, "--output", &output, "--format", "csv", "-c", left_out]);
    let left_out = left_out.lines().nth(1).expect("the shop has people who refuse");
    assert_eq!(intents(left_out, &view(item)).0, 403);
    assert_eq!(server.get(&format!("/v1/users/{left_out}/intents")).0, 404);

    // What no night would read.
    let event = |change: &[(&str, Value)]| {
        let mut event = view(item)[0].clone();
        change.iter().for_each(|(name, value)| event[*name] = value.clone());
        json!([event])
    };
    for (body, status, detail) in [
        (event(&[("ts", json!("2126-01-01T00:00:00Z"))]), 422, "[0].ts: 2126-01-01T00:00:00+00:00 is in the future"),
        (event(&[("ts", json!("2026-01-05T00:00:00Z"))]), 422, "before the night of 2026-02-21"),
        (event(&[("ts", json!("yesterday"))]), 422, "[0].ts"),
        (event(&[("ts", Value::Null)]), 422, "[0].ts"),
        (event(&[("event_type", json!("look"))]), 422, "[0]: unknown_event_type"),
        (event(&[("price", json!(-1))]), 422, "[0]: negative_price"),
        (event(&[("price", json!("much"))]), 422, "[0].price"),
        (event(&[("price", json!(1e300))]), 422, "[0]: out_of_range"),
        (event(&[("quantity", json!(1e12))]), 422, "[0].quantity"),
        (event(&[("user_id", json!("someone-else"))]), 422, "[0].user_id"),
        (event(&[("colour", json!("red"))]), 422, "unknown field `colour`"),
        (json!({ "ts": 1 }), 422, "expected a sequence"),
        (json!(vec![view(item)[0].clone(); 1001]), 422, "at most 1000 events, got 1001"),
        (json!(vec![view(item)[0].clone(); 30_000]), 413, "length limit"),
    ] {
        let (answered, problem) = intents(user, &body);
        let got = problem["detail"].as_str().unwrap_or_default();
        assert!(answered == status && got.contains(detail), "{status} {detail}: {answered} {problem}");
    }
    for (headers, body, status) in [
        ("Content-Type: application/json", "[{", 400),
        ("Content-Type: text/plain", "[]", 415),
        ("Content-Type: application/json", "\u{0}", 400),
    ] {
        let (answered, _, _) = server.http(&format!(
            "POST /v1/users/u/intents HTTP/1.1\r\nHost: localhost\r\n{headers}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(answered, status, "{headers} {body:?}");
    }
    for id in ["%27%3B--", "%22", "%C3%A9%E2%82%AC", "a%2Fb"] {
        assert_eq!(intents(id, &view("'; DROP TABLE intent; --")).0, 200, "{id}");
    }
    assert_eq!(server.get("/healthz").0, 200);

    // Someone asks while another model becomes champion.
    let (_, other) = challenger(&output, |card| card["blend"]["purchase"]["intercept"] = 4.into());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(server.get(&format!("/v1/users/{user}/intents")).0, 200);
                let (status, answer) = intents(user, &view(item));
                assert_eq!(status, 200, "{answer}");
                answers += 1;
            }
            answers
        });
        done(&["promote", &other, "--force", "--output", &output]);
        server.wait_until("a new model is taken up", |_| intents(user, &view(item)).1["model_version"] == other);
        is_over.store(true, Ordering::Relaxed);
        assert!(asking.join().unwrap() > 10, "answers while the model changed");
    });
    assert!(purchase(&intents(user, &json!([])).1) > purchase(&now.1), "the other model answers");

    // Without a lake it is not known who refused.
    drop(server);
    let server = Server::start(&[], &["--output", &output]);
    let (status, problem) = server.post(&format!("/v1/users/{user}/intents"), &view(item));
    assert!(status == 400 && problem["hint"].as_str().unwrap().contains("--lake"), "{status} {problem}");
}

#[test]
fn explanations_add_up_and_can_be_read_out() {
    // What is asked by SQL needs psql, and the page a browser; the rest needs neither.
    let has_psql = clients_are_here("explanations_add_up_and_can_be_read_out");
    let (_own, lake, output) = shop_with_a_night();
    let server = Server::start(&[], &["--lake", &lake, "--output", &output]);
    let busiest = query(&output, "SELECT user_id, p_purchase FROM intent ORDER BY events_seen DESC, user_id LIMIT 3");
    let mut with_trees = 0;
    for line in busiest.lines().skip(1) {
        let (user, published) = line.split_once(',').unwrap();
        for intent in ["purchase", "churn", "view"] {
            let (status, answer) = server.get(&format!("/v1/users/{user}/explanation?intent={intent}"));
            assert_eq!(
                (status, &answer["user_id"], &answer["run_date"]),
                (200, &json!(user), &json!(NIGHT)),
                "{answer}"
            );
            let parts = answer["explained"]["parts"].as_array().unwrap();
            let odds = |kinds: &[&str]| -> f64 {
                let of_kind = parts.iter().filter(|part| kinds.contains(&part["part"].as_str().unwrap()));
                of_kind.map(|part| part["log_odds"].as_f64().unwrap()).sum()
            };
            let (total, rest) = (odds(&["total"]), odds(&["rest"]));
            for kind in ["baseline", "group", "event"] {
                assert!(parts.iter().any(|part| part["part"] == kind), "{user}, {intent}: a part {kind}");
            }
            let method = &answer["explained"]["method"];
            assert!(method["baseline"].is_string(), "{answer}");
            with_trees += usize::from(method["network_weight"].as_f64() < Some(1.0));
            let tolerance = method["tolerance"].as_f64().unwrap();
            assert_eq!(tolerance, 0.02, "as docs/howto/serve.md states it");
            let sum = odds(&["baseline", "group", "event", "rest"]);
            assert!((sum - total).abs() < 1e-9, "{user}, {intent}: {sum} instead of {total}");
            let difference = total - odds(&["baseline"]);
            // The bound is that of the network; trees may make the whole difference smaller.
            let most = 1.05 * tolerance * difference.abs().max(1.0);
            assert!(rest.abs() <= most, "{user}, {intent}: {rest} of {difference}");
            // Calibrated as the answer says, they are the published probability.
            let number = |name: &str| method["calibration"][name].as_f64().unwrap();
            let probability = 1.0 / (1.0 + (-(number("slope") * total + number("intercept"))).exp());
            let stated = answer["intents"][format!("p_{intent}")].as_f64().unwrap();
            assert!((probability - stated).abs() < 1e-4, "{user}, {intent}: {probability}, {stated}");
            if intent == "purchase" {
                assert!((stated - published.parse::<f64>().unwrap()).abs() < 1e-5);
            }
            // The same in SQL.
            if !has_psql {
                continue;
            }
            let rows = server.rows(&format!(
                "SELECT round(sum(log_odds) FILTER (WHERE part <> 'total'), 6) = round(sum(log_odds) FILTER (WHERE part = 'total'), 6), \
                   count(*) FROM explain_user('{user}', '{intent}')"
            ));
            assert_eq!(rows, [format!("t,{}", parts.len())]);
        }
        let (_, answer) = server.get(&format!("/v1/users/{user}/explanation"));
        let average = answer["averages"]["p_purchase"].as_f64().unwrap();
        let stored = |sql: &str| query(&output, sql).lines().nth(1).unwrap().to_string();
        let mean: f64 = stored("SELECT round(avg(p_purchase), 9) FROM intent").parse().unwrap();
        assert!((average - mean).abs() < 1e-8, "{average}, {mean}");
        assert_eq!(answer["segment"], stored(&format!("SELECT segment FROM intent WHERE user_id = '{user}'")));
        assert!(answer["last_seen_at"].is_string() && answer["summary"].as_str().unwrap().ends_with('.'), "{answer}");
        // Values of features, not only names of groups.
        let words = |part: &Value| part["words"].as_str().unwrap().to_string();
        let groups = answer["explained"]["parts"].as_array().unwrap().iter().filter(|part| part["part"] == "group");
        let groups: Vec<String> = groups.map(words).collect();
        assert!(groups.iter().filter(|words| words.contains(" days")).count() >= 6, "{groups:#?}");
        let items = answer["items"].as_array().unwrap();
        assert!(!items.is_empty() && items.iter().all(|item| !item["reason"].as_str().unwrap().is_empty()), "{answer}");
    }
    assert!(with_trees > 0, "no explanation has a part of trees");
    let user = busiest.lines().nth(1).unwrap().split_once(',').unwrap().0;
    for (path, status) in [
        (format!("/v1/users/{user}/explanation?intent=money"), 400),
        ("/v1/users/no-user/explanation".into(), 404),
        (format!("/agent?user={user}&intent=money"), 400),
        ("/agent?user=no-user".into(), 404),
        ("/agent?user=%3Cscript%3E".into(), 404),
        ("/agent?colour=red".into(), 400),
    ] {
        let (answered, page) = server.get(&path);
        assert_eq!(answered, status, "{path}");
        assert!(!page.to_string().contains("<script"), "{page}");
    }
    if has_psql {
        assert!(server.rows("SELECT * FROM explain_user('no-user')").is_empty());
        for wrong in ["explain_user()", "explain_user('u', 'money')", "explain_user(1)"] {
            assert!(server.refused(&format!("SELECT * FROM {wrong}")).contains("expected"), "{wrong}");
        }
    }

    if !clients::are_here("explanations_add_up_and_can_be_read_out") {
        return;
    }
    let seen = clients::open_agent(&format!("http://127.0.0.1:{}/agent", server.http), user);
    for list in ["errors", "elsewhere", "violations", "overflows"] {
        assert_eq!(seen[list], json!([]), "{list}");
    }
    assert!(seen["title"].as_str().unwrap().starts_with(user), "{seen}");
    assert_eq!(seen["chances"].as_array().unwrap().len(), 7);
    assert!(seen["summary"].as_str().unwrap().starts_with("A purchase within 7 days has a chance of "), "{seen}");
    assert!(seen["chances"][4].as_str().unwrap().starts_with("A purchase within 7 days"), "{seen}");
    assert!(!seen["reasons"].as_array().unwrap().is_empty() && !seen["suggestions"].as_array().unwrap().is_empty());
    assert_eq!(seen["explained"], "Why: no visit at all");
    assert_eq!(seen["unknown"][0], 404);
    assert!(seen["unknown"][1].as_str().unwrap().starts_with("There is no customer"), "{seen}");
}
