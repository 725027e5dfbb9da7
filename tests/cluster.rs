//! One scheduler and two executors, processes of the real binary, run a night over S3 on loopback.

use intentcast::tables::write_files::WRITTEN_BY;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::nightly::{UNDISTURBED, done, shop, uploaded};
use crate::support::published::{assert_same_night, published};
use crate::support::s3::S3Server;

/// A process that ends with the test.
struct Process(Child);

impl Process {
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
        Self(command.args(arguments).stderr(Stdio::null()).stdout(Stdio::null()).spawn().unwrap())
    }

    fn name(&self) -> String {
        format!("process {}", self.0.id())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string()
}

fn wait_for(port: &str) {
    let clock = Instant::now();
    while TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        assert!(clock.elapsed() < Duration::from_secs(60), "nobody listens on port {port}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Who wrote the Parquet files below a folder.
fn writers(server: &S3Server, folder: &str) -> BTreeSet<String> {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let place = server.location(&format!("s3://shop/out/{folder}"));
        let mut names = BTreeSet::new();
        for object in place.list().await.unwrap() {
            let Some(name) = object.location.as_ref().strip_prefix(&format!("out/{folder}/")) else { continue };
            if name.ends_with(".parquet") {
                let file = SerializedFileReader::new(place.read(name).await.unwrap()).unwrap();
                let pairs = file.metadata().file_metadata().key_value_metadata().unwrap();
                let writer = pairs.iter().find(|pair| pair.key == WRITTEN_BY).unwrap();
                names.insert(writer.value.clone().unwrap());
            }
        }
        names
    })
}

#[test]
fn two_executors_write_the_tables_of_the_local_night() {
    let (_own, lake, output) = shop();
    let server = uploaded(&lake, &output);
    // What training kept was written here; the cluster is to make its own.
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let state = server.location("s3://shop/out/state");
        state.delete(state.list().await.unwrap().into_iter().map(|m| m.location).collect()).await.unwrap();
    });
    let flags = server.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let places = ["--lake", "s3://shop/lake", "--output", "s3://shop/out"];

    let scheduler_port = free_port();
    let address = format!("127.0.0.1:{scheduler_port}");
    let _scheduler = Process::start(&[&flags[..], &["cluster", "scheduler"], &places, &["--bind", &address]].concat());
    wait_for(&scheduler_port);
    let executors = [(); 2].map(|()| {
        let (port, task_port) = (free_port(), free_port());
        let own = ["--tasks", "2", "--scheduler", &address, "--port", &port, "--task-port", &task_port];
        let process = Process::start(&[&flags[..], &["cluster", "executor"], &places, &own].concat());
        wait_for(&task_port);
        process
    });

    let cluster = format!("engine.cluster=df://{address}");
    let settings = ["--set", &cluster, "--set", "engine.partitions=4"];
    done(&[&flags[..], &settings, &["nightly"], &places, &["--date", "2026-02-21"]].concat());
    assert_same_night(&published(&server.location("s3://shop/out")), &UNDISTURBED, "cluster");

    let both: BTreeSet<String> = executors.iter().map(Process::name).collect();
    assert_eq!(writers(&server, "state/features"), both, "features and scores");
    // A unit is sorted as a whole, so one task writes it; small tables are one partition.
    let tables = ["intent", "recommendation", "demand", "replenishment", "segment"].map(|t| format!("tables/{t}"));
    for folder in [&tables[..], &["state/rollups".to_string()]].concat() {
        let wrote = writers(&server, &folder);
        assert!(!wrote.is_empty() && wrote.is_subset(&both), "{folder} by {wrote:?}, executors are {both:?}");
    }
}
