//! The server, asked by clients that no one here wrote.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::support::canaries::persons;
use crate::support::clients::{self, Client};
use crate::support::repository::root;
use crate::support::server::{Server, clients_are_here};
use crate::support::shop::{contents, done, night, query, refused, run, shop, shop_with_a_night};

const NIGHT: &str = "2026-02-21";
const EARLIER: &str = "2026-02-20";

/// Returns the statements of a recording.
fn statements(file: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join("tests/support/served/statements").join(file)).unwrap();
    text.split("\n-- next\n").skip(1).map(String::from).collect()
}

#[test]
fn clients_read_a_published_night() {
    if !clients_are_here("clients_read_a_published_night") {
        return;
    }
    let (own, lake, output) = shop_with_a_night();
    let before = contents(&output);
    let server = Server::start(&[], &["--lake", &lake, "--output", &output]);
    let published = query(&output, "SELECT count(*) FROM intent");
    let intents: u64 = published.lines().nth(1).unwrap().parse().unwrap();

    server.session("psycopg_session.py", &[server.pg]);
    let pandas = server.session("pandas_session.py", &[server.pg]);
    assert_eq!(pandas["catalogue"]["default_schema"], "tables", "{pandas}");
    server.session("jdbc_session.py", &[server.pg]);
    let adbc = server.session("adbc_session.py", &[server.flight]);
    assert_eq!(adbc["queries"]["tables_intent"].as_u64(), Some(intents), "{}", adbc["queries"]);
    assert_eq!(adbc["with a password"], serde_json::json!([{ "a": 1 }]), "an open server ignores credentials");
    server.session("polars_session.py", &[server.pg, server.flight]);

    // psql's own commands: what they show, not only that they end well.
    let describe = |command: &str| {
        let output = server.psql_as("anna", "", &["-At", "-c", command]);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    for part in ["tables|intent|view", "features|user_features|view", "lake|events|view", "report|order_lines|view"] {
        assert!(describe("\\d").contains(part), "{part}\n{}", describe("\\d"));
    }
    let columns = describe("\\d intent");
    assert!(columns.contains("user_id|text|") && columns.contains("p_purchase|double precision|"), "{columns}");
    assert!(describe("\\d+ intent").contains("probability, 0 to 1, of a purchase"), "{}", describe("\\d+ intent"));
    for (command, comment) in [
        ("\\d+ user_features", "hours since the last event"),
        ("\\d+ events", "text of a review"),
        ("\\d+ model_input", "what score_intents takes"),
        ("\\dv+", "One row per raw event."),
    ] {
        let shown = describe(command);
        // psql lists views with their comments only where it may ask for their sizes.
        assert!(shown.contains(comment), "{command}: {comment}\n{shown}");
    }
    let functions = describe("\\df");
    let function = functions.lines().find(|line| line.contains("|score_intents|")).expect(&functions);
    assert!(function.contains("|struct of the intents") && function.contains("|features [, version"), "{function}");
    for (name, shown) in
        [("explain_user", "|a table function|'id' [, 'intent']|"), ("count_days", "|day|"), ("run_date", "|date||")]
    {
        let function = functions.lines().find(|line| line.contains(&format!("|{name}|"))).expect(&functions);
        assert!(function.contains(shown), "{function}");
    }
    let wrong = server.refused("SELECT 1;\n  SELEC 2");
    assert!(wrong.contains("42601") && wrong.ends_with("LINE 2:   SELEC 2\n          ^\n"), "{wrong}");
    assert!(describe("\\dn").contains("tables|"));

    // A filter that is null as a whole finds nothing.
    assert_eq!(
        server.rows(&format!("SELECT count(*) FROM intent WHERE user_id = NULL AND run_date = '{NIGHT}'")),
        ["0"]
    );
    // The same model, now: the published scores again.
    let differs = "SELECT count(*), max(abs(score_intents(m.features)['p_purchase'] - i.p_purchase)) < 0.000001 \
                   FROM model_input AS m JOIN intent AS i ON i.user_id = m.user_id";
    assert_eq!(server.rows(differs), [format!("{intents},t")]);
    let read = serde_json::json!(["intent", "model_input"]);
    let audit = server.audited(|lines| lines.iter().any(|line| line["tables"] == read));
    assert!(audit.iter().all(|line| line["address"].as_str().is_some_and(|at| at.starts_with("127.0.0.1:"))));
    let last = audit.last().unwrap();
    assert_eq!((&last["user"], &last["protocol"], &last["outcome"]), (&"anna".into(), &"pg".into(), &"00000".into()));
    assert_eq!(last["tables"], read);
    assert_eq!(last["statement_hash"].as_str().map(str::len), Some(16), "{last}");
    assert!(last["rows"] == 1 && last["seconds"].as_f64() > Some(0.0), "{last}");
    assert!(!server.errors().contains("0.000001"), "the log holds no values");
    // The other functions of the job.
    let recommended = "SELECT count(*) FROM (SELECT unnest(recommend(score_intents(features)['taste'], NULL, NULL, 3)) FROM \
                       (SELECT features FROM model_input LIMIT 5)) AS r";
    assert_eq!(server.rows(recommended), ["15"]);
    let differs = "SELECT count(*), max(abs(f.forecast['mean'] - d.model_mean)) < 0.000001 FROM (SELECT item_id, \
                   unnest(forecast_demand(history)) AS forecast FROM item_history) AS f JOIN demand AS d ON \
                   d.item_id = f.item_id AND d.target_date = d.run_date + CAST(f.forecast['step'] - 1 AS INT)";
    let rows = server.rows(differs);
    assert!(rows[0].ends_with(",t") && !rows[0].starts_with("0,"), "{rows:?}");
    assert_eq!(stop_during_a_query(server), Some(0));
    assert_eq!(contents(&output), before, "a server writes nothing, and so builds no rollups");
    builds_no_rollups(own.path(), &lake, &output, intents);
}

/// Serves an output whose rollups are gone: what is published is shown, features count no event, and nothing is built anywhere.
fn builds_no_rollups(folder: &Path, lake: &str, output: &str, intents: u64) {
    fs::remove_dir_all(Path::new(output).join("state/rollups")).unwrap();
    let before = contents(output);
    let spill = folder.join("spill");
    fs::create_dir(&spill).unwrap();
    let spilled = format!("engine.spill_folder={}", spill.display());
    let server = Server::start(&[&spilled], &["--lake", lake, "--output", output]);
    assert_eq!(server.rows("SELECT count(*) FROM intent"), [intents.to_string()]);
    assert_eq!(server.rows("SELECT count(*) FROM features.user_event"), ["0"]);
    assert_eq!(server.rows("SELECT count(*) FROM features.user_features WHERE events_lifetime > 0"), ["0"]);
    assert_ne!(server.rows("SELECT count(*) FROM lake.events"), ["0"]);
    // Someone whom the lake's users name; without events no one else is known to be scored.
    let user = server.rows("SELECT min(user_id) FROM intent JOIN user_features USING (user_id)").remove(0);
    assert_eq!(server.get(&format!("/v1/users/{user}/intents")).0, 200);
    let (status, problem) = server.post(&format!("/v1/users/{user}/intents"), &serde_json::json!([]));
    assert_eq!(status, 503, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("left is gone"), "{problem}");
    let log = server.errors();
    assert!(!log.contains("building") && log.contains("left is gone: its features count no event"), "{log}");
    let files = contents(&spill.display().to_string());
    assert!(!files.keys().any(|name| name.ends_with(".parquet")), "{files:?}");
    assert_eq!(server.stop(), Some(0));
    assert_eq!(contents(output), before);
}

/// Stops a server while a client reads a long result; returns the exit code. The client gets all its rows, and no other is let in.
fn stop_during_a_query(server: Server) -> Option<i32> {
    // More rows than sockets and the server hold ahead: they last as long as they are read.
    let (rows, text) = (300_000, "x".repeat(100));
    let sql = format!("COPY (SELECT concat(value, '{text}') FROM generate_series(1, {rows})) TO STDOUT");
    let mut reading = server.start_psql(&sql);
    let mut lines = BufReader::new(reading.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with(&text));
    server.terminate();
    server.wait_until("no connection is accepted", |server| {
        let ports = [server.pg, server.flight, server.http];
        ports.iter().all(|port| TcpStream::connect(("127.0.0.1", *port)).is_err())
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lines.map(Result::unwrap).count(), rows - 1);
    assert!(reading.wait().unwrap().success());
    server.stop()
}

/// Returns what a tool asks when it connects, as the tests of `datafusion-postgres` record it.
fn recorded(tool: &str) -> Vec<String> {
    // Crates of other platforms may never have been downloaded.
    let version = Command::new(env!("CARGO")).arg("-vV").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).expect(&version);
    let metadata = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--offline",
            "--locked",
            "--filter-platform",
            host,
            "--manifest-path",
        ])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let package = packages.iter().find(|package| package["name"] == "datafusion-postgres").unwrap();
    let manifest = Path::new(package["manifest_path"].as_str().unwrap());
    let source = fs::read_to_string(manifest.with_file_name("tests").join(format!("{tool}.rs"))).unwrap();
    let mut found = Vec::new();
    for item in syn::parse_file(&source).unwrap().items {
        let syn::Item::Const(item) = item else { continue };
        let syn::Expr::Reference(list) = *item.expr else { continue };
        let syn::Expr::Array(list) = *list.expr else { continue };
        for statement in list.elems {
            let syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(statement), .. }) = statement else { continue };
            found.push(statement.value());
        }
    }
    found
}

#[test]
fn what_tools_ask_at_their_start_is_answered() {
    if !clients_are_here("what_tools_ask_at_their_start_is_answered") {
        return;
    }
    let (_own, lake, output) = shop_with_a_night();
    let server = Server::start(&[], &["--lake", &lake, "--output", &output]);
    for (file, expected) in [("tools.sql", 30), ("psql.sql", 80)] {
        let statements = statements(file);
        assert!(statements.len() >= expected, "{file}: {}", statements.len());
        for statement in statements {
            server.rows(&statement);
        }
    }
    assert_eq!(
        server
            .rows("SELECT obj_description(c.oid, 'pg_class') FROM pg_class AS c WHERE c.relname = 'demand_total'")
            .len(),
        1
    );
    // As recorded, with a schema and a table of ours.
    let mut rows_of = BTreeMap::new();
    for (tool, expected) in [("dbeaver", 19), ("metabase", 10), ("grafana", 2), ("pgcli", 13), ("pgadmin", 2)] {
        let statements = recorded(tool);
        assert!(statements.len() >= expected, "{tool}: {}", statements.len());
        let ours =
            |statement: &String| statement.replace("public.games", "tables.intent").replace("'public'", "'tables'");
        let statements: Vec<String> = statements.iter().map(ours).collect();
        let rows: Vec<Vec<String>> = statements.iter().map(|statement| server.rows(statement)).collect();
        rows_of.insert(tool, rows);
    }
    // What each of them shows its user first.
    let shows = |tool: &str, row: &str| rows_of[tool].iter().flatten().any(|shown| shown == row);
    assert!(shows("metabase", "tables,intent,VIEW,,"), "tables: {:?}", rows_of["metabase"]);
    for row in ["tables.intent", "tables.demand", "tables.runs", "features.user_features"] {
        assert!(shows("grafana", row), "{row}: {:?}", rows_of["grafana"]);
    }
    for row in ["p_purchase,double precision", "user_id,text", "last_seen_at,timestamp with time zone", "run_date,date"]
    {
        assert!(shows("grafana", row), "{row}: {:?}", rows_of["grafana"]);
    }
    assert!(rows_of["dbeaver"].iter().flatten().any(|row| row.contains(",tables,")), "{:?}", rows_of["dbeaver"]);
    assert_eq!(server.rows("SHOW timezone"), ["UTC"]);
}

#[test]
fn broken_clients_harm_no_other() {
    if !clients_are_here("broken_clients_harm_no_other") {
        return;
    }
    let (_own, lake, output) = shop_with_a_night();
    let server = Server::start(&[], &["--lake", &lake, "--output", &output]);
    // As many as are let in, and more: they are closed after a while.
    let silent = |port: u16| (0..600).filter_map(|_| TcpStream::connect(("127.0.0.1", port)).ok()).collect();
    let silent: Vec<Vec<TcpStream>> = vec![silent(server.http), silent(server.flight)];
    // Warm: stacks keep what the deepest statement took.
    server.session_with("wire_garbage.py", &[server.pg], &["deep"]);
    server.wait_until("silent connections are closed", |server| {
        let at_end = |stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            !matches!(stream.peek(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
        };
        server.errors().contains("serve.connections_max") && silent.iter().flatten().all(at_end)
    });
    drop(silent);
    let warm = server.resident_bytes();
    let files = server.open_files();
    let summary = server.session("wire_garbage.py", &[server.pg]);
    assert!(summary["cases"].as_u64() >= Some(80), "{summary}");
    let summary = server.session("web_garbage.py", &[server.flight, server.http]);
    assert!(summary["flight"].as_u64() >= Some(20) && summary["http"].as_u64() >= Some(10), "{summary}");
    for (request, status) in [
        ("GET /v1/users/u/intents HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n", 421),
        ("GET /v1/users/u/intents HTTP/1.1\r\nConnection: close\r\n\r\n", 421),
        ("GET /v1/users/u/intents?run_date=soon HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        ("GET /v1/users/u/intents?run_date=2001-01-01 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        ("GET /v1/users/u/intents?day=x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        ("GET /v1/users/%FF/intents HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 400),
        ("GET /v1/users/%00%27%3B--/intents HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        ("GET /etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 404),
        ("DELETE /v1/users/u/intents HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", 405),
        ("GARBAGE\r\n\r\n", 400),
    ] {
        let (answered, head, _) = server.http(request);
        assert_eq!(answered, status, "{request}");
        let is_http = !request.starts_with("GARBAGE");
        assert_eq!(is_http, head.contains("application/problem+json"), "{request}\n{head}");
        assert_eq!(is_http, head.contains("x-request-id: "), "{request}\n{head}");
    }
    let named = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: 4711\r\nConnection: close\r\n\r\n";
    assert!(server.http(named).1.contains("x-request-id: 4711"));
    // Queries that never end, or return far too much.
    for query in
        ["SELECT count(*) FROM generate_series(1, 100000000000)", "SELECT * FROM intent AS a, intent AS b, intent AS c"]
    {
        for _ in 0..3 {
            let errors = server.refused(&format!("SET statement_timeout = '500ms'; {query}"));
            assert!(errors.contains("57014") || errors.contains("54000"), "{query}\n{errors}");
        }
    }
    server.rows("SELECT 1");
    server.wait_until("nothing stays open", |server| server.open_files() <= files + 2);
    let grown = server.resident_bytes().saturating_sub(warm) >> 20;
    assert!(grown < 64, "resident memory grew by {grown} MiB");
}

#[test]
fn only_reading_is_allowed_and_within_limits() {
    if !clients_are_here("only_reading_is_allowed_and_within_limits") {
        return;
    }
    let (own, lake, output) = shop_with_a_night();
    let limits = [
        "serve.query_rows_max=1000",
        "serve.query_seconds_max=3",
        "serve.queries_max=1",
        "serve.query_bytes_max=5000000",
    ];
    let server = Server::start(&limits, &["--lake", &lake, "--output", &output]);
    let file = own.path().join("written");
    let file = file.display();
    let refusals = [
        (format!("COPY (SELECT 1) TO '{file}'"), "25006"),
        (format!("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{lake}'"), "42601"),
        ("CREATE TABLE t AS SELECT 1".into(), "25006"),
        ("CREATE VIEW v AS SELECT 1".into(), "25006"),
        ("INSERT INTO tables.runs (kind) VALUES ('night')".into(), "25006"),
        ("DROP VIEW tables.intent".into(), "25006"),
        ("SET datafusion.execution.batch_size = 1".into(), "42501"),
        (format!("SELECT * FROM '{lake}/users/part-0.parquet'"), "42P01"),
        ("SELECT * FROM read_parquet('/etc/passwd')".into(), "42000"),
        ("SELECT * FROM 'http://169.254.169.254/latest/meta-data'".into(), "42P01"),
        ("SELECT embed_text('a', 'http://169.254.169.254/latest/meta-data')".into(), "42000"),
        ("SELECT unnest(range(0, 10000000000))".into(), "42000"),
        ("SELECT * FROM raw_events".into(), "42P01"),
        ("SELECT * FROM unit_event".into(), "42P01"),
        ("SELEC 1".into(), "42601"),
        ("SELECT no_such_column FROM intent".into(), "42703"),
        ("SELECT 1 / 0".into(), "22012"),
        ("SELECT * FROM generate_series(1, 2000)".into(), "54000"),
        ("SELECT count(*) FROM generate_series(1, 100000000000)".into(), "57014"),
        ("SET statement_timeout = '300ms'; SELECT count(*) FROM generate_series(1, 100000000000)".into(), "57014"),
        ("SELECT array_length(array_agg(value)) FROM generate_series(1, 3000000)".into(), "53200"),
        ("SET intentcast.run_date = '2001-01-01'".into(), "22023"),
    ];
    for (answered, (sql, state)) in refusals.into_iter().enumerate() {
        let before = server.audit().len();
        let errors = server.refused(&sql);
        assert!(errors.contains(state), "{sql}: expected {state}\n{errors}");
        server.wait_until(&format!("a line of the audit log: {sql}"), |server| server.audit().len() > before);
        let audit = server.audit();
        let outcomes = audit.iter().filter(|line| line["outcome"] != "00000").skip(answered).collect::<Vec<_>>();
        assert_eq!(outcomes.len(), 1, "{sql}\n{outcomes:?}");
        assert_eq!(outcomes[0]["outcome"], state, "{sql}");
    }
    assert!(!Path::new(&file.to_string()).exists());

    // A client that reads more slowly than the limit allows: 90 MB in ten parts, of which sockets hold a few.
    let wide = (0..5).fold("'x'".to_string(), |text, _| format!("replace({text}, 'x', 'xxxxxxxxxx')"));
    let parts = vec![format!("SELECT {wide} FROM generate_series(1, 90)"); 10].join(" UNION ALL ");
    let mut reading = server.start_psql(&format!("COPY ({parts}) TO STDOUT"));
    let mut lines = BufReader::new(reading.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap().len(), 100_000);
    std::thread::sleep(Duration::from_secs(4));
    let read = lines.map(Result::unwrap).count();
    let ended = reading.wait_with_output().unwrap();
    let errors = String::from_utf8(ended.stderr).unwrap();
    assert!(!ended.status.success() && errors.contains("57014"), "{errors}");
    assert!(read < 899, "{read} rows after the first");

    // A query waits for its turn; metadata does not.
    let mut slow = server.start_psql("SELECT count(*) FROM generate_series(1, 100000000000)");
    std::thread::sleep(Duration::from_millis(500));
    let before = server.audit().len();
    server.rows("SELECT count(*) FROM information_schema.tables");
    server.wait_until("a line of the audit log", |server| server.audit().len() > before);
    assert_eq!(server.audit().len(), before + 1, "metadata was answered first");
    assert!(slow.try_wait().unwrap().is_none(), "metadata was answered first");
    assert_eq!(server.rows("SELECT count(*) > 0 FROM intent"), ["t"]);
    slow.wait().unwrap();

    // One runs and eight wait; the next is refused, and one that waits too long is, too.
    let limits = ["serve.queries_max=1", "serve.wait_seconds_max=5", "serve.drain_seconds=1"];
    let pool = ["engine.memory_bytes_max=40000000"];
    let server = Server::start(&[&limits[..], &pool].concat(), &["--lake", &lake, "--output", &output]);
    cancel_frees_memory(&server);
    let slow = || server.start_psql("SELECT count(*) FROM generate_series(1, 100000000000)");
    let ended = |client: std::process::Child| {
        let output = client.wait_with_output().unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let running = slow();
    std::thread::sleep(Duration::from_secs(1));
    let waiting: Vec<_> = (0..9).map(|_| slow()).collect();
    server.audited(|lines| lines.iter().any(|line| line["outcome"] == "53300"));
    server.session("flight_busy.py", &[server.flight]);
    let refused: Vec<String> = waiting.into_iter().map(ended).collect();
    assert!(refused.iter().all(|refusal| refusal.contains("53300")), "{refused:?}");
    assert_eq!(refused.iter().filter(|refusal| refusal.contains("8 queries wait already")).count(), 1, "{refused:?}");
    assert_eq!(refused.iter().filter(|refusal| refusal.contains("within 5 seconds")).count(), 8, "{refused:?}");
    // What still runs a while after the signal is cancelled; the server ends well.
    assert_eq!(server.stop(), Some(0));
    let cancelled = ended(running);
    assert!(cancelled.contains("57014") && cancelled.contains("the server stopped"), "{cancelled}");
}

/// Cancels a query that holds more than half of the memory of all queries; another one then has it.
fn cancel_frees_memory(server: &Server) {
    server.wait_until("all is read", |server| server.errors().contains("ready to score users"));
    let before = server.resident_bytes();
    let holding = server.start_psql(
        "SELECT array_length(array_agg(value) FILTER (WHERE value <= 3000000)), count(*) FROM generate_series(1, 100000000000)",
    );
    server.wait_until("a query holds memory", |server| server.resident_bytes() > before + (16 << 20));
    assert!(Command::new("kill").args(["-INT", &holding.id().to_string()]).status().unwrap().success());
    let ended = holding.wait_with_output().unwrap();
    let errors = String::from_utf8(ended.stderr).unwrap();
    assert!(errors.contains("57014") && errors.contains("was cancelled"), "{errors}");
    let collect = |values: u32| format!("SELECT array_length(array_agg(value)) FROM generate_series(1, {values})");
    assert_eq!(server.rows(&collect(3_000_000)), ["3000000"]);
    let refused = server.refused(&collect(6_000_000));
    assert!(refused.contains("53200"), "{refused}");
}

#[test]
fn one_users_answers_come_by_http() {
    // HTTP needs no client; what is asked by SQL meanwhile does.
    let has_clients = clients_are_here("one_users_answers_come_by_http");
    let (_own, lake, output) = shop();
    let server = Server::start(&[], &["--lake", &lake, "--output", &output]);
    assert_eq!(server.get("/healthz").0, 200);
    assert_eq!(server.get("/").0, 307, "leads to the page");
    assert_eq!(server.get("/readyz").0, 503, "before the first night");
    assert_eq!(server.get("/v1/users/u0000001/intents").0, 404);
    night(&lake, &output, EARLIER);
    server.wait_until("the first night is shown", |server| server.get("/readyz").0 == 200);
    // Someone asks all the while.
    let first = query(&output, "SELECT min(user_id) FROM intent").lines().nth(1).unwrap().to_string();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answers = 0;
            while !is_over.load(Ordering::Relaxed) {
                assert_eq!(server.get(&format!("/v1/users/{first}/intents")).0, 200);
                if has_clients {
                    assert_eq!(server.rows("SELECT count(*) > 0 FROM intent"), ["t"]);
                }
                answers += 1;
            }
            answers
        });
        // Connections that stay open all the while.
        let open = scope
            .spawn(|| has_clients.then(|| server.session_with("night_changes.py", &[server.pg], &[EARLIER, NIGHT])));
        server.wait_until("a long query has begun", |server| {
            // Its first row is read between these two.
            open.is_finished() || server.audit().iter().filter(|line| line["user"] == "reader").count() >= 2
        });
        night(&lake, &output, NIGHT);
        server.wait_until("a new night is taken up", |server| {
            server.get("/readyz").1.as_str().is_some_and(|text| text.contains(NIGHT))
        });
        is_over.store(true, Ordering::Relaxed);
        assert!(asking.join().unwrap() > 10, "answers while the night changed");
        if let Some(summary) = open.join().unwrap() {
            assert!(summary["asked"].as_u64() > Some(0), "{summary}");
        }
    });

    let csv = query(
        &output,
        "SELECT user_id, p_purchase, p_churn, segment, model_version FROM intent ORDER BY user_id LIMIT 20",
    );
    let mut earlier_answers = 0;
    for line in csv.lines().skip(1) {
        let row: Vec<&str> = line.split(',').collect();
        let (status, answer) = server.get(&format!("/v1/users/{}/intents", row[0]));
        assert_eq!((status, &answer["user_id"], &answer["run_date"]), (200, &row[0].into(), &NIGHT.into()));
        for (intent, published) in [("p_purchase", row[1]), ("p_churn", row[2])] {
            let (answered, published) =
                (answer["intents"][intent].as_f64().unwrap(), published.parse::<f64>().unwrap());
            assert!((answered - published).abs() < 1e-15, "{intent} of {}: {answered}, {published}", row[0]);
        }
        assert_eq!((&answer["segment"], &answer["model_version"]), (&row[3].into(), &row[4].into()));
        let earlier = server.get(&format!("/v1/users/{}/intents?run_date={EARLIER}", row[0]));
        let history =
            format!("SELECT p_purchase FROM intent_history WHERE user_id = '{}' AND run_date = '{EARLIER}'", row[0]);
        match query(&output, &history).lines().nth(1) {
            None => assert_eq!(earlier.0, 404, "{earlier:?}"),
            Some(published) => {
                assert_eq!((earlier.0, &earlier.1["run_date"]), (200, &EARLIER.into()));
                let answered = earlier.1["intents"]["p_purchase"].as_f64().unwrap();
                assert!((answered - published.parse::<f64>().unwrap()).abs() < 1e-15, "{earlier:?}, {published}");
                earlier_answers += 1;
            }
        }
    }
    assert!(earlier_answers > 0);
    let best = query(&output, "SELECT user_id, item_id FROM recommendation WHERE rank = 1 ORDER BY user_id LIMIT 1");
    let (user, item) = best.lines().nth(1).unwrap().split_once(',').unwrap();
    let (status, answer) = server.get(&format!("/v1/users/{user}/recommendations?k=3"));
    assert_eq!((status, &answer["items"][0]["item_id"]), (200, &item.into()), "{answer}");
    let ranks: Vec<&Value> = answer["items"].as_array().unwrap().iter().map(|item| &item["rank"]).collect();
    assert_eq!(ranks, [1, 2, 3]);

    let described = server.get("/openapi.json").1;
    for (path, methods) in described["paths"].as_object().unwrap() {
        let id = if path.starts_with("/v1/items") { item } else { user };
        let (status, answer) = server.get(&path.replace("{id}", id));
        let expected = if methods.get("get").is_some() { 200 } else { 405 };
        assert_eq!(status, expected, "{path}: {answer}");
    }
    let metrics = server.get("/metrics").1;
    let counted = "intentcast_http_request_seconds_count{route=\"/v1/users/{id}/intents\",status=\"200\"}";
    assert!(metrics.as_str().unwrap().contains(counted), "{metrics}");

    done(&["rollback", "--output", &output, "--date", NIGHT]);
    server.wait_until("a night that was rolled back is not shown", |server| {
        server.get(&format!("/v1/users/{user}/intents")).1["run_date"] != NIGHT
    });
    assert_eq!(server.get(&format!("/v1/users/{user}/intents?run_date={NIGHT}")).0, 404);
    if has_clients {
        let moved = server.refused(&format!("SET intentcast.run_date = '{NIGHT}'; SELECT count(*) FROM intent"));
        assert!(moved.contains("22023"), "{moved}");
    }
    assert_eq!(server.stop(), Some(0));
}

#[test]
fn people_who_may_not_be_scored_are_not_shown() {
    if !clients_are_here("people_who_may_not_be_scored_are_not_shown") {
        return;
    }
    let (_own, lake, output) = shop();
    night(&lake, &output, EARLIER);
    night(&lake, &output, NIGHT);
    let lake_sql = |sql: &str| done(&["sql", "--lake", &lake, "--output", &output, "--format", "csv", "-c", sql]);
    let left_out = "SELECT DISTINCT e.user_id FROM events AS e LEFT JOIN stitched AS s ON s.user_id = e.user_id WHERE \
                    coalesce(s.canonical_user_id, e.user_id) NOT IN (SELECT user_id FROM scored_users) AND e.user_id IS NOT NULL";
    let left_out: Vec<String> = lake_sql(left_out).lines().skip(1).map(String::from).collect();
    assert!(!left_out.is_empty(), "the shop has people who refuse");
    let server = Server::start(&[], &["--lake", &lake, "--output", &output]);
    let list = left_out.iter().map(|user| format!("'{user}'")).collect::<Vec<_>>().join(",");
    for table in ["lake.events", "lake.users", "lake.erasures", "features.user_features", "features.user_event"] {
        let sql = format!("SELECT count(*) FROM {table} WHERE user_id IN ({list})");
        assert_eq!(server.rows(&sql), ["0"], "{table}");
    }
    for user in left_out.iter().take(5) {
        assert_eq!(server.get(&format!("/v1/users/{user}/intents")).0, 404, "{user}");
    }
    for table in ["features.person_consent", "features.person", "features.stitched"] {
        assert!(server.refused(&format!("SELECT * FROM {table}")).contains("42P01"), "{table}");
    }
    assert_eq!(server.rows("SELECT count(canonical_user_id) FROM lake.users"), ["0"]);
    // What fails at a hidden row would show its value.
    let probe = format!(
        "SELECT count(*) FROM lake.users WHERE CASE WHEN user_id = '{}' THEN CAST(user_id AS BIGINT) > 0 END",
        left_out[0]
    );
    assert_eq!(server.rows(&probe), ["0"]);
    assert!(server.refused("EXPLAIN ANALYZE SELECT * FROM lake.users").contains("42501"));
    // Events without a user belong to no one.
    let count = |sql: &str| lake_sql(sql).lines().nth(1).unwrap().to_string();
    let anonymous = "SELECT count(*) FROM events WHERE user_id IS NULL";
    assert_eq!(server.rows("SELECT count(*) FROM lake.events WHERE user_id IS NULL"), [count(anonymous)]);
    assert_ne!(count("SELECT count(query) FROM events"), "0");
    assert_eq!(server.rows("SELECT count(query) FROM lake.events"), ["0"], "free text is not shown");

    let moved = format!("SET intentcast.run_date = '{EARLIER}'; SELECT min(run_date), max(as_of()::date) FROM intent");
    assert_eq!(server.rows(&moved).last().unwrap(), &format!("{EARLIER},{EARLIER}"));
    let history = format!("SET intentcast.run_date = '{EARLIER}'; SELECT count(DISTINCT run_date) FROM intent_history");
    assert_eq!(server.rows(&history).last().unwrap(), "1", "an earlier night knows no later one");
    let back = format!("SET intentcast.run_date = '{EARLIER}'; RESET intentcast.run_date; SHOW intentcast.run_date");
    assert_eq!(server.rows(&back).last().unwrap(), NIGHT);
    let back = format!(
        "SET intentcast.run_date = '{EARLIER}'; RESET intentcast.run_date; SELECT min(run_date), max(as_of()::date) FROM intent"
    );
    assert_eq!(server.rows(&back).last().unwrap(), &format!("{NIGHT},{NIGHT}"));
    server.session_with("flight_nights.py", &[server.flight], &[EARLIER, NIGHT]);

    let alone = Server::start(&[], &["--output", &output]);
    let total = query(&output, "SELECT count(*) FROM intent");
    assert_eq!(alone.rows("SELECT count(*) FROM intent"), [total.lines().nth(1).unwrap()]);
    assert_eq!(alone.rows(&format!("SELECT count(*) FROM features.user_event WHERE user_id IN ({list})")), ["0"]);
    assert!(
        alone.rows("SELECT count(*) FROM features.user_features WHERE events_lifetime > 0")[0].parse::<u64>().unwrap()
            > 0
    );
    let missing = alone.refused("SELECT * FROM lake.events");
    assert!(missing.contains("42P01"), "{missing}");
}

/// Makes a certificate that signs itself.
fn certify(folder: &Path) {
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
        .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .arg("-keyout")
        .arg(folder.join("key.pem"))
        .arg("-out")
        .arg(folder.join("certificate.pem"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// Makes a certificate, and users of each role; returns the settings file.
fn secure(folder: &Path) -> String {
    certify(folder);
    fs::write(folder.join("pseudonyms.key"), [7; 32]).unwrap();
    let mut text = format!(
        "[serve]\ntls_certificate = \"{0}/certificate.pem\"\ntls_key = \"{0}/key.pem\"\n\
         pseudonym_key = \"{0}/pseudonyms.key\"\n",
        folder.display()
    );
    text += &users(&[
        ("analyst", "analyst", ""),
        ("planner", "planner", ""),
        ("service", "service", ""),
        ("admin", "admin", "free_text = true\n"),
        ("researcher", "analyst", "user_ids = \"pseudonym\"\n"),
        ("partner", "service", "user_ids = \"pseudonym\"\n"),
    ]);
    let file = folder.join("serve.toml");
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

/// Returns the settings of users with their roles, whose passwords are `of NAME`.
fn users(all: &[(&str, &str, &str)]) -> String {
    let mut text = String::new();
    for (name, role, more) in all {
        let mut hashing = Command::new(env!("CARGO_BIN_EXE_intentcast"))
            .args(["serve", "--hash-password"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut hashing.stdin.take().unwrap(), format!("of {name}\n").as_bytes()).unwrap();
        let hashes = String::from_utf8(hashing.wait_with_output().unwrap().stdout).unwrap();
        text += &format!("[[serve.users]]\nname = \"{name}\"\nrole = \"{role}\"\n{more}{hashes}");
    }
    text
}

#[test]
fn users_prove_who_they_are_and_see_what_their_role_may() {
    if !clients_are_here("users_prove_who_they_are_and_see_what_their_role_may") {
        return;
    }
    let (own, lake, output) = shop_with_a_night();
    let file = secure(own.path());
    let server = Server::start(&[], &["--config", &file, "--lake", &lake, "--output", &output]);
    let ask = |user: &str, password: &str, sql: &str| {
        let output = server.psql_as(user, password, &["-v", "VERBOSITY=verbose", "-At", "-c", sql]);
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).unwrap().trim().to_string()),
            false => Err(String::from_utf8(output.stderr).unwrap()),
        }
    };
    assert_eq!(ask("analyst", "of analyst", "SELECT count(query) FROM lake.events").unwrap(), "0");
    assert_ne!(ask("admin", "of admin", "SELECT count(query) FROM lake.events").unwrap(), "0");
    assert_eq!(ask("planner", "of planner", "SELECT count(*) > 0 FROM replenishment").unwrap(), "t");
    for table in ["demand", "demand_total", "replenishment", "runs", "lake.items", "lake.inventory", "lake.promotions"]
    {
        let rows = ask("planner", "of planner", &format!("SELECT count(*) >= 0 FROM {table}"));
        assert_eq!(rows.as_deref(), Ok("t"), "{table}");
    }
    // Free text, wherever there is some.
    let columns = "SELECT concat(table_schema, '.', table_name, ' ', column_name) FROM information_schema.columns WHERE \
        column_name IN ('query', 'text', 'last_queries') AND table_schema IN ('tables', 'features', 'lake', 'report')";
    let columns = ask("admin", "of admin", columns).unwrap();
    assert!(columns.lines().count() >= 4, "{columns}");
    let mut told = 0;
    for column in columns.lines() {
        let (table, column) = column.split_once(' ').unwrap();
        let sql = format!("SELECT count({column}) FROM {table}");
        assert_eq!(ask("analyst", "of analyst", &sql).as_deref(), Ok("0"), "{table}.{column}");
        told += usize::from(ask("admin", "of admin", &sql).unwrap() != "0");
    }
    assert!(told >= 3, "{told} of {columns}");
    for table in
        ["intent", "tables.intent_history", "features.user_features", "lake.events", "lake.users", "report.intent_days"]
    {
        let refused = ask("planner", "of planner", &format!("SELECT * FROM {table}")).unwrap_err();
        assert!(refused.contains("42P01"), "{table}: {refused}");
    }
    for hidden in [
        "WITH i AS (SELECT * FROM intent) SELECT count(*) FROM i",
        "WITH RECURSIVE i AS (SELECT user_id FROM intent) SELECT count(*) FROM i",
        "SELECT count(*) FROM (SELECT user_id FROM lake.events) AS e",
        "SELECT (SELECT max(p_purchase) FROM tables.intent)",
        "SELECT count(*) FROM runs WHERE EXISTS (SELECT 1 FROM features.user_features)",
        "SELECT count(*) FROM demand WHERE item_id IN (SELECT item_id FROM lake.events)",
        "SELECT count(*) FROM runs, LATERAL (SELECT * FROM intent) AS i",
        "SELECT 1 UNION ALL SELECT count(*) FROM intent",
        "SELECT * FROM \"intent\"",
        "SELECT * FROM \"tables\".\"intent\"",
        "SELECT * FROM intentcast.tables.intent",
        "COPY (SELECT * FROM intent) TO STDOUT",
    ] {
        let refused = ask("planner", "of planner", hidden).unwrap_err();
        assert!(refused.contains("42P01"), "{hidden}: {refused}");
    }
    let explained = ask("planner", "of planner", "SELECT * FROM explain_user('u0000001')").unwrap_err();
    assert!(explained.contains("explain_user: the role planner sees no customers"), "{explained}");
    let refused = ask("service", "of service", "SELECT 1").unwrap_err();
    assert!(refused.contains("42501"), "{refused}");
    for (user, password) in [("analyst", "of planner"), ("analyst", ""), ("o'neill", "x"), ("", "x")] {
        let refused = ask(user, password, "SELECT 1").unwrap_err();
        assert!(refused.contains("28P01") || refused.contains("password"), "{user}: {refused}");
    }
    let plain = server.psql_as("admin", "of admin", &["-d", "sslmode=disable dbname=shop", "-c", "SELECT 1"]);
    assert!(String::from_utf8_lossy(&plain.stderr).contains("encrypted"), "{plain:?}");
    // The connection is encrypted.
    let tls = server.psql_as("admin", "of admin", &["-d", "sslmode=require dbname=shop", "-c", "\\conninfo"]);
    assert!(String::from_utf8_lossy(&tls.stdout).contains("SSL"), "{tls:?}");

    let certificate = own.path().join("certificate.pem");
    server.session_with("adbc_users.py", &[server.flight], &[certificate.to_str().unwrap()]);
    let is_refused = |line: &Value| line["protocol"] == "flight" && line["outcome"] == "28P01" && line["user"] == "";
    server.audited(|lines| lines.iter().any(is_refused));
    let curl_text = |arguments: &[&str], path: &str| {
        let url = format!("https://localhost:{}{path}", server.http);
        let answered = Command::new("curl")
            .args(["-s", "--cacert", certificate.to_str().unwrap(), "-w", "\n%{http_code}"])
            .args(arguments)
            .arg(url)
            .output()
            .unwrap();
        let text = String::from_utf8(answered.stdout).unwrap();
        let (body, status) = text.rsplit_once('\n').unwrap();
        (status.to_string(), body.to_string())
    };
    let curl = |arguments: &[&str], path: &str| {
        let (status, body) = curl_text(arguments, path);
        (status, serde_json::from_str::<Value>(&body).unwrap_or_default())
    };
    let user = ask("analyst", "of analyst", "SELECT min(user_id) FROM intent").unwrap();
    let path = format!("/v1/users/{user}/intents");
    assert_eq!(curl(&[], &path).0, "401");
    assert_eq!(curl(&["-u", "service:wrong"], &path).0, "401");
    assert_eq!(curl(&["-u", "planner:of planner"], &path).0, "403");
    let by_http = |line: &&Value| line["protocol"] == "http";
    let audit = server.audited(|lines| lines.iter().filter(by_http).count() >= 3);
    let audit: Vec<&Value> = audit.iter().filter(by_http).collect();
    for (line, user, outcome) in [(0, "", "401"), (1, "", "401"), (2, "planner", "403")] {
        assert_eq!((&audit[line]["user"], &audit[line]["outcome"]), (&user.into(), &outcome.into()));
        assert!(audit[line]["address"].is_string(), "{}", audit[line]);
    }
    assert_eq!(curl(&["-u", "planner:of planner", "-X", "POST"], "/v1/token").0, "200");
    assert_eq!(curl(&["-u", "service:of service"], &path).0, "200");
    let json = ["-H", "Content-Type: application/json", "-d", "[]"];
    let post = |who: &str, path: &str| curl(&[&["-u", &format!("{who}:of {who}")][..], &json].concat(), path);
    for (who, status) in [("service", "200"), ("admin", "200"), ("analyst", "403"), ("planner", "403")] {
        assert_eq!(post(who, &path).0, status, "{who}");
    }
    assert_eq!(curl(&["-u", "analyst:of analyst"], &format!("/agent?user={user}")).0, "200");
    assert_eq!(curl(&["-u", "admin:of admin"], "/agent").0, "200");
    for who in ["service", "planner"] {
        assert_eq!(curl(&["-u", &format!("{who}:of {who}")], &format!("/agent?user={user}")).0, "403", "{who}");
    }
    assert_eq!(curl(&[], "/agent").0, "401");

    // Who sees pseudonyms sees no id, filters by them, and is answered by them.
    let research = |sql: &str| ask("researcher", "of researcher", sql).unwrap();
    let ids: Vec<String> =
        ask("analyst", "of analyst", "SELECT user_id FROM intent").unwrap().lines().map(String::from).collect();
    let views = "SELECT concat(table_schema, '.', table_name) FROM information_schema.columns \
        WHERE column_name IN ('user_id', 'features') AND table_schema IN ('tables', 'features', 'lake', 'report')";
    let views = research(views);
    assert!(views.lines().count() >= 12, "{views}");
    for view in views.lines() {
        let rows = research(&format!("SELECT * FROM {view} LIMIT 300"));
        let shown = rows.split(|c: char| !c.is_alphanumeric()).find(|word| ids.iter().any(|id| id == word));
        assert_eq!(shown, None, "{view}");
    }
    let same = format!("SELECT p_purchase FROM intent WHERE user_id = '{user}'");
    let pseudonym = research(&format!(
        "SELECT i.user_id FROM intent AS i WHERE p_purchase = {}",
        ask("analyst", "of analyst", &same).unwrap()
    ));
    assert_eq!(pseudonym.len(), 32, "{pseudonym}");
    assert_eq!(research(&format!("SELECT count(*) FROM intent WHERE user_id = '{pseudonym}'")), "1");
    assert_eq!(research(&format!("SELECT count(*) FROM intent WHERE user_id = '{user}'")), "0");
    assert_eq!(research("SELECT count(*) > 0 FROM intent JOIN user_features USING (user_id)"), "t");
    let parts = research(&format!("SELECT count(*) > 5 FROM explain_user('{pseudonym}')"));
    assert_eq!(parts, "t");
    let by_pseudonym = format!("/v1/users/{pseudonym}/intents");
    let (status, answer) = curl(&["-u", "partner:of partner"], &by_pseudonym);
    assert_eq!((status.as_str(), &answer["user_id"]), ("200", &pseudonym.as_str().into()));
    let (status, answer) = post("partner", &by_pseudonym);
    assert_eq!((status.as_str(), &answer["user_id"]), ("200", &pseudonym.as_str().into()), "{answer}");
    // Every answer about the customer, with the pseudonym and without any id.
    let user_path = |rest: &str| format!("/v1/users/{pseudonym}/{rest}");
    let item = ask("analyst", "of analyst", "SELECT min(item_id) FROM recommendation").unwrap();
    let scores = format!("{{\"user_id\": \"{pseudonym}\", \"item_ids\": [\"{item}\"]}}");
    for (who, path, body) in [
        ("partner", user_path("intents"), None),
        ("partner", user_path("intents"), Some("[]")),
        ("partner", user_path("explanation"), None),
        ("researcher", user_path("explanation?intent=churn"), None),
        ("researcher", format!("/agent?user={pseudonym}"), None),
        ("partner", user_path("recommendations"), None),
        ("partner", user_path("recommendations?k=3"), Some("[]")),
        ("partner", "/v1/items/scores".into(), Some(scores.as_str())),
        ("partner", format!("/v1/items/{item}/related"), None),
    ] {
        let sent = body.map(|body| ["-H", "Content-Type: application/json", "-d", body]);
        let credentials = format!("{who}:of {who}");
        let arguments: Vec<&str> = ["-u", &credentials].into_iter().chain(sent.into_iter().flatten()).collect();
        let (status, text) = curl_text(&arguments, &path);
        assert_eq!(status, "200", "{who} {path}: {text}");
        assert_eq!(persons(&text).next(), None, "{who} {path}");
        assert!(text.contains(&pseudonym) || path.ends_with("/related"), "{who} {path}: {text}");
    }
    assert_eq!(curl(&["-u", "partner:of partner"], &path).0, "404", "an id is no pseudonym");
    assert_eq!(post("partner", &path).0, "404");
    assert_eq!(curl(&["-u", "service:of service"], &by_pseudonym).0, "404");
    let (_, token) = curl(&["-u", "service:of service", "-X", "POST"], "/v1/token");
    let bearer = format!("Authorization: Bearer {}", token["token"].as_str().unwrap());
    assert_eq!(curl(&["-H", &bearer], &path).0, "200");
    assert_eq!(curl(&["-H", "Authorization: Bearer no"], &path).0, "401");
    assert_eq!(curl(&["-H", &bearer, "-X", "POST"], "/v1/token").0, "401", "a token makes no other one");
    assert_eq!(curl(&[], "/healthz").0, "200");
    // Guessing is slowed down: of 520 guesses few are looked at.
    let before = server.resident_bytes();
    let guesses = server.session_with("guess_passwords.py", &[server.pg], &["planner", "of planner"]);
    let grown = server.resident_bytes().saturating_sub(before) >> 20;
    assert!(grown < 64, "resident memory grew by {grown} MiB");
    assert!(guesses["looked_at"].as_u64() < Some(15), "{guesses}");
    let refused = ask("planner", "of planner", "SELECT 1").unwrap_err();
    assert!(refused.contains("too many wrong passwords"), "{refused}");
    assert!(server.errors().contains("wrong password for user \"planner\""));
    assert!(!server.errors().contains("guess") && !server.errors().contains("SCRAM-SHA-256"), "{}", server.errors());
}

#[test]
fn a_server_that_is_not_safe_does_not_start() {
    let (own, _lake, output) = shop();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let off = ["--flight", "off", "--http", "off"];
    let start = |settings: &[&str], arguments: &[&str]| {
        let settings: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
        refused(&[&settings[..], &["serve", "--output", &output], arguments].concat(), 2)
    };
    assert!(start(&[], &[&["--pg", &taken][..], &off].concat()).contains("in use"));
    let beyond = start(&[], &[&["--pg", "0.0.0.0:0"][..], &off].concat());
    assert!(beyond.contains("missing: [[serve.users]], serve.tls_certificate, serve.tls_key\n"), "{beyond}");
    for setting in ["flight", "http"] {
        let others = ["pg", "flight", "http"].into_iter().filter(|other| *other != setting);
        let others: Vec<String> = others.flat_map(|other| [format!("--{other}"), "off".into()]).collect();
        let own = [format!("--{setting}"), "0.0.0.0:0".into()];
        let arguments: Vec<&str> = own.iter().chain(&others).map(String::as_str).collect();
        assert!(start(&[], &arguments).contains(&format!("serve.{setting} = 0.0.0.0:0")));
    }
    assert!(start(&[], &[&["--pg", "off"][..], &off].concat()).contains("off for all"));
    assert!(start(&[], &[&["--pg", "no port"][..], &off].concat()).contains("serve.pg"));
    assert!(start(&["serve.tls_certificate=/no/such.pem"], &off).contains("expected both or none"));
    let missing = start(&["serve.tls_certificate=/no/such.pem", "serve.tls_key=/no/such.key"], &off);
    assert!(missing.contains("/no/such.pem"), "{missing}");
    let file = own.path().join("serve.toml");
    let user = |line: &str| {
        fs::write(&file, format!("[[serve.users]]\nname = \"a\"\nrole = \"analyst\"\n{line}\n")).unwrap();
        refused(
            &["--config", file.to_str().unwrap(), "serve", "--output", &output, "--pg", "off", "--flight", "off"],
            2,
        )
    };
    assert!(user("").contains("expected scram, argon2 or both"));
    assert!(user("scram = \"md5abc\"").contains("scram"));
    assert!(user("argon2 = \"secret words\"").contains("argon2"));
    assert!(!user("argon2 = \"secret words\"").contains("secret words"));
    let none = run(&["serve"]);
    assert_eq!(none.status.code(), Some(2), "without an output");
    fs::write(&file, users(&[("analyst", "analyst", "")])).unwrap();
    let refused_beyond = |arguments: &[&str]| {
        refused(&[arguments, &["serve", "--output", &output, "--pg", "0.0.0.0:0"][..], &off].concat(), 2)
    };
    let without_tls = refused_beyond(&["--config", file.to_str().unwrap()]);
    assert!(without_tls.contains("missing: serve.tls_certificate, serve.tls_key\n"), "{without_tls}");

    if !clients::all_here("a_server_that_is_not_safe_does_not_start", &[Client::Program("openssl")]) {
        return;
    }
    certify(own.path());
    let other = tempfile::tempdir().unwrap();
    certify(other.path());
    fs::write(own.path().join("words.pem"), "no certificate").unwrap();
    let path = |folder: &Path, file: &str| folder.join(file).display().to_string();
    for (certificate, key, said) in [
        (path(own.path(), "words.pem"), path(own.path(), "key.pem"), "words.pem"),
        (path(own.path(), "certificate.pem"), path(own.path(), "words.pem"), "words.pem"),
        (path(own.path(), "certificate.pem"), path(other.path(), "key.pem"), "the key must be of this certificate"),
    ] {
        let settings = [format!("serve.tls_certificate={certificate}"), format!("serve.tls_key={key}")];
        let failure = start(&settings.each_ref().map(String::as_str), &off);
        assert!(failure.contains(said), "{failure}");
    }
    let pair = [("certificate", "certificate.pem"), ("key", "key.pem")];
    let pair = pair.map(|(setting, name)| format!("serve.tls_{setting}={}", path(own.path(), name)));
    let without_users = refused_beyond(&["--set", &pair[0], "--set", &pair[1]]);
    assert!(without_users.contains("missing: [[serve.users]]\n"), "{without_users}");
}
