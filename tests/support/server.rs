//! A running `intentcast serve`, and the clients that ask it.

use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::canaries;
use super::clients::{self, Client};
use super::repository::root;
use super::shop::QUICK;

/// Longest wait for what a server does by itself.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server on free ports, which ends with the test.
pub struct Server {
    process: Child,
    pub pg: u16,
    pub flight: u16,
    pub http: u16,
    errors: Arc<Mutex<String>>,
}

impl Server {
    /// Starts a server and waits until its addresses are bound.
    pub fn start(settings: &[&str], arguments: &[&str]) -> Self {
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        let ports = ["--pg", "127.0.0.1:0", "--flight", "127.0.0.1:0", "--http", "127.0.0.1:0"];
        let mut process = Command::new(env!("CARGO_BIN_EXE_intentcast"))
            // It would be taken for a setting.
            .env_remove("INTENTCAST_WRITE_DOCS")
            .args(QUICK)
            .args(["--set", "serve.refresh_seconds=1"])
            .args(settings)
            .arg("serve")
            .args(arguments)
            .args(ports)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = Arc::new(Mutex::new(String::new()));
        let (kept, lines) = (Arc::clone(&errors), BufReader::new(process.stderr.take().unwrap()).lines());
        std::thread::spawn(move || {
            lines.map_while(Result::ok).for_each(|line| *kept.lock().unwrap() += &(line + "\n"))
        });
        let mut bound = [0; 3];
        let printed = BufReader::new(process.stdout.take().unwrap()).lines().take(3).map_while(Result::ok);
        for (port, line) in bound.iter_mut().zip(printed) {
            *port = line.rsplit(':').next().unwrap().parse().unwrap();
        }
        let server = Self { process, pg: bound[0], flight: bound[1], http: bound[2], errors };
        assert!(bound.iter().all(|port| *port > 0), "{}", server.errors());
        server
    }

    /// Standard error so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// Lines of the audit log so far.
    pub fn audit(&self) -> Vec<Value> {
        let errors = self.errors();
        let lines = errors.lines().filter(|line| line.starts_with("{\"target\":\"audit\""));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until the lines of the audit log are as expected, since a line follows its answer; returns them.
    pub fn audited(&self, holds: impl Fn(&[Value]) -> bool) -> Vec<Value> {
        self.wait_until("lines of the audit log", |server| holds(&server.audit()));
        self.audit()
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Open files and connections.
    pub fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    /// Runs SQL with psql; each statement in its own transaction, rows as lines of text.
    pub fn psql(&self, sql: &str) -> Output {
        self.psql_as("anna", "", &["-At", "-F", ",", "-c", sql])
    }

    /// Runs psql as a user, with a password in the environment.
    pub fn psql_as(&self, user: &str, password: &str, arguments: &[&str]) -> Output {
        self.psql_command(user).args(arguments).env("PGPASSWORD", password).output().unwrap()
    }

    /// Starts SQL with psql, whose rows and errors the test reads.
    pub fn start_psql(&self, sql: &str) -> Child {
        let mut command = self.psql_command("anna");
        command.args(["-v", "VERBOSITY=verbose", "-At", "-c", sql]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    fn psql_command(&self, user: &str) -> Command {
        let port = self.pg.to_string();
        let mut command = Command::new("psql");
        command.args(["-X", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", &port, "-U", user, "-d", "shop"]);
        command.env("PGCONNECT_TIMEOUT", "10");
        command
    }

    /// Runs SQL that must succeed; returns its rows.
    pub fn rows(&self, sql: &str) -> Vec<String> {
        let output = self.psql(sql);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}\n{errors}\n{}", self.errors());
        String::from_utf8(output.stdout).unwrap().lines().map(String::from).collect()
    }

    /// Runs SQL that must be refused; returns the message with its SQLSTATE.
    pub fn refused(&self, sql: &str) -> String {
        let output = self.psql_as("anna", "", &["-v", "VERBOSITY=verbose", "-At", "-c", sql]);
        assert!(!output.status.success(), "{sql}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Runs a session of a Python client (tests/support/served); returns its summary.
    pub fn session(&self, script: &str, ports: &[u16]) -> Value {
        self.session_with(script, ports, &[])
    }

    /// Runs a session of a Python client with more arguments.
    pub fn session_with(&self, script: &str, ports: &[u16], arguments: &[&str]) -> Value {
        let file = root().join("tests/support/served").join(script);
        let ports = ports.iter().map(u16::to_string);
        clients::run(Command::new(python()).arg("-B").arg(file).arg("127.0.0.1").args(ports).args(arguments))
    }

    /// Asks by HTTP; returns status, headers and body.
    pub fn http(&self, request: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_string())
    }

    /// Gets a path.
    pub fn get(&self, path: &str) -> (u16, Value) {
        let (status, _, body) =
            self.http(&format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// Posts JSON to a path.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let (status, _, answer) = self.http(&format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        ));
        (status, serde_json::from_str(&answer).unwrap_or(Value::String(answer)))
    }

    /// Waits until a condition holds.
    pub fn wait_until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        let begun = Instant::now();
        while !holds(self) {
            assert!(begun.elapsed() < PATIENCE, "{what}\n{}", self.errors());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        Command::new("kill").arg(self.process.id().to_string()).status().unwrap();
    }

    /// Sends SIGTERM; returns the exit code.
    pub fn stop(mut self) -> Option<i32> {
        self.terminate();
        self.process.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        self.process.kill().ok();
        self.process.wait().ok();
        if !std::thread::panicking() {
            canaries::refuse_persons(&[], &self.errors());
        }
    }
}

/// Returns the Python that has the clients.
pub fn python() -> PathBuf {
    root().join(".clients/python/bin/python")
}

/// Returns whether psql and Python's clients are here (see [`clients::are_here`]).
pub fn clients_are_here(test: &str) -> bool {
    let jar = Path::new("/usr/share/java/postgresql.jar");
    clients::all_here(
        test,
        &[
            Client::Program("psql"),
            Client::Program("curl"),
            Client::Program("openssl"),
            Client::File(jar),
            Client::File(&root().join(".clients/python/stamp")),
        ],
    )
}
