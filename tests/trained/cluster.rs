//! A cluster of one scheduler and two executors, as processes of the real binary, runs a night over S3 on loopback.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, Float64Type};
use datafusion::prelude::ParquetReadOptions;
use intentcast::config::Config;
use intentcast::engine::{self, places};
use intentcast::score::models::{ContentWrites, Models};
use intentcast::score::operator;
use intentcast::tables::schemas::NIGHT_TABLES;
use intentcast::tables::write_files::WRITTEN_BY;
use parquet::file::reader::{FileReader, SerializedFileReader};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::pictures::PictureShop;
use crate::support::published::{WITHOUT_ROWS, assert_same_night, published};
use crate::support::s3::S3Server;
use crate::support::shop::{ENCODER, UNDISTURBED, done, shop, upload};
use crate::support::small_lake::{SmallLake, event};
use crate::support::{device, lakes};

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
        assert!(clock.elapsed() < Duration::from_secs(60), "nothing listens on port {port}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// One scheduler and two executors with two tasks each.
struct Cluster {
    address: String,
    executors: [Process; 2],
    _scheduler: Process,
}

impl Cluster {
    fn start(flags: &[&str], places: &[&str]) -> Self {
        let scheduler_port = free_port();
        let address = format!("127.0.0.1:{scheduler_port}");
        let scheduler = Process::start(&[flags, &["cluster", "scheduler"], places, &["--bind", &address]].concat());
        wait_for(&scheduler_port);
        let executors = [(); 2].map(|()| {
            let (port, task_port) = (free_port(), free_port());
            let own = ["--tasks", "2", "--scheduler", &address, "--port", &port, "--task-port", &task_port];
            let process = Process::start(&[flags, &["cluster", "executor"], places, &own].concat());
            wait_for(&task_port);
            process
        });
        Self { address: format!("df://{address}"), executors, _scheduler: scheduler }
    }
}

/// Returns the processes that wrote the Parquet files below a folder.
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
    let server = upload(&lake, &output);
    // This process wrote the state of the training; the cluster must write its own.
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let state = server.location("s3://shop/out/state");
        state.delete(state.list().await.unwrap().into_iter().map(|m| m.location).collect()).await.unwrap();
    });
    let flags = server.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let places = ["--lake", "s3://shop/lake", "--output", "s3://shop/out"];

    let cluster = Cluster::start(&flags, &places);
    let address = format!("engine.cluster={}", cluster.address);
    let settings = ["--set", &address, "--set", "engine.partitions=4"];
    done(&[&flags[..], &settings, &["nightly"], &places, &["--date", "2026-02-21"]].concat());
    assert_same_night(&published(&server.location("s3://shop/out")), &UNDISTURBED, "cluster");

    let both: BTreeSet<String> = cluster.executors.iter().map(Process::name).collect();
    assert_eq!(writers(&server, "state/features"), both, "features and scores");
    // A unit is sorted as a whole, so one task writes it; small tables are one partition.
    let tables = NIGHT_TABLES.iter().filter(|table| !WITHOUT_ROWS.contains(table));
    for folder in tables.map(|table| format!("tables/{table}")).chain(["state/rollups".to_string()]) {
        let wrote = writers(&server, &folder);
        assert!(!wrote.is_empty() && wrote.is_subset(&both), "{folder} by {wrote:?}, executors are {both:?}");
    }

    // Rates become days by a function of lists, which Ballista's executors lack by themselves.
    upload_sale_in_yen(&server);
    let places =
        ["--lake", "s3://shop/abroad", "--output", "s3://shop/out-abroad", "--date", "2026-02-01", "--refresh"];
    let query = ["--format", "csv", "-c", "SELECT sum(revenue) AS euros FROM unit_item_day"];
    let euros = done(&[&flags[..], &settings, &["--set", "lake.currency=EUR", "sql"], &places, &query].concat());
    assert_eq!(euros, "euros\n6.0000\n");
}

/// Writes a lake with one sale in yen, and their rate, to the shop's bucket.
fn upload_sale_in_yen(server: &S3Server) {
    let shop = SmallLake::new();
    let sale = event("1 AS quantity, 1000.0 AS price, 'JPY' AS currency");
    let to = server.location("s3://shop/abroad");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        shop.write("events/a.parquet", &sale).await;
        shop.write("rates/a.parquet", "SELECT 'JPY' AS currency, DATE '2026-01-02' AS day, 0.006 AS rate").await;
        for file in ["events/a.parquet", "rates/a.parquet"] {
            let bytes = std::fs::read(Path::new(&shop.lake()).join(file)).unwrap();
            to.write(file, bytes).await.unwrap();
        }
    });
}

/// Numbers by text, or by number of a picture: the probability of one label, the vector, the probabilities of all labels. Empty
/// for null.
type Answers = BTreeMap<Option<String>, Vec<Option<f64>>>;

fn answers(batches: &[RecordBatch]) -> Answers {
    let mut answers = Answers::new();
    for batch in batches {
        let texts = batch.column(0).as_string::<i32>();
        let (vectors, labels) = (batch.column(1).as_list::<i32>(), batch.column(2).as_list::<i32>());
        let one = batch.column(3).as_primitive::<Float64Type>();
        for row in 0..batch.num_rows() {
            let mut numbers = vec![one.is_valid(row).then(|| one.value(row))];
            if vectors.is_valid(row) {
                let vector = vectors.value(row);
                numbers.extend(vector.as_primitive::<Float32Type>().iter().map(|v| v.map(f64::from)));
            }
            if labels.is_valid(row) {
                let labels = labels.value(row);
                numbers.extend(labels.as_struct().column(1).as_primitive::<Float64Type>().iter());
            }
            let text = texts.is_valid(row).then(|| texts.value(row).to_string());
            assert!(answers.insert(text, numbers).is_none(), "a text is there once");
        }
    }
    answers
}

#[test]
fn two_executors_read_texts_and_pictures_as_one_process_does() {
    let (own, lake, output) = shop();
    let reviews = own.path().join("reviews.csv");
    let rows = (0..120).map(|i| match i % 3 {
        0 => format!("the lamp number {i} is broken,0\n"),
        _ => format!("the mug number {i} is a joy,1\n"),
    });
    std::fs::write(&reviews, format!("review,good\n{}", rows.collect::<String>())).unwrap();
    let task = ["train", "--task", "text", "--text-column", "review", "--label", "good", "--encoder", ENCODER];
    let device = device::setting();
    let quick = ["--set", &device, "--set", "text.epochs_max=1", "--set", "text.max_length=24"];
    let table = ["--table", reviews.to_str().unwrap(), "--output", &output];
    let printed = done(&[&quick[..], &task, &table].concat());
    let of_texts = printed.split_whitespace().nth(2).unwrap();
    // Rows 5 to 7 have no picture or an unreadable one.
    let pictures = PictureShop::new();
    let items = pictures.path("items.parquet");
    let task = ["--table", &items, "--image-column", "image", "--label", "disc"];
    let (model, _) = pictures.train(&["image.epochs_max=1"], &task);
    let of_pictures = model.version.as_str();
    lakes::copy(&model.folder, Path::new(&format!("{output}/models")));
    std::fs::create_dir(format!("{lake}/pictures")).unwrap();
    std::fs::copy(items, format!("{lake}/pictures/items.parquet")).unwrap();

    let server = upload(&lake, &output);
    let flags = server.flags();
    let folders = "functions.folders=s3://shop/out/models";
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--set", folders]).collect();
    let places = ["--lake", "s3://shop/lake", "--output", "s3://shop/out"];
    let cluster = Cluster::start(&flags, &places);

    let run = |address: &str, query: &str| {
        let mut config = Config { s3: server.config(), ..Config::default() };
        (config.lake.uri, config.output.uri) = ("s3://shop/lake".into(), "s3://shop/out".into());
        (config.engine.cluster, config.engine.partitions) = (address.into(), 4);
        config.score.device = device::device();
        config.functions.folders = vec!["s3://shop/out/models".into()];
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let models = Arc::new(Models::new(&config).unwrap());
            let ctx = intentcast::cluster::connect(engine::session(&config).unwrap(), &config, &models);
            let ctx = operator::install(&ctx.unwrap(), models, ContentWrites::Output);
            let items = server.location("s3://shop/lake");
            ctx.register_object_store(&items.store_url().unwrap(), Arc::clone(&items.store));
            for folder in ["items", "pictures"] {
                let files = format!("s3://shop/lake/{folder}/");
                ctx.register_parquet(folder, files, ParquetReadOptions::default()).await.unwrap();
            }
            let plan = ctx.sql(query).await.unwrap().create_physical_plan().await.unwrap();
            answers(&places::run(&ctx, plan).await.unwrap())
        })
    };
    let texts = format!(
        "SELECT title, embed_text(title) AS vector, classify_text(title, '{of_texts}') AS labels, \
             classify_text(title, '{of_texts}', 'good') AS good \
         FROM (SELECT DISTINCT CASE WHEN title LIKE 'Birch%' THEN NULL ELSE title END AS title FROM items)"
    );
    let encoder = format!("s3://shop/out/models/{of_pictures}/image");
    let pictures = format!(
        "SELECT CAST(row AS VARCHAR) AS row, embed_image(image, '{encoder}') AS vector, \
             classify_image(image, '{of_pictures}') AS labels, classify_image(image, '{of_pictures}', 'disc') AS disc \
         FROM (SELECT DISTINCT row, image FROM pictures)"
    );
    for (query, width, rows_min, lacks) in
        [(texts, 24, 21, &[None][..]), (pictures, 128, 160, &["5", "6", "7"].map(|row| Some(row.to_string()))[..])]
    {
        let (here, there) = (run("local", &query), run(&cluster.address, &query));
        assert!(here.len() >= rows_min, "{} rows", here.len());
        assert_eq!(here.keys().collect::<Vec<_>>(), there.keys().collect::<Vec<_>>());
        for (of, numbers) in &here {
            let numbers_there = &there[of];
            let expected = if lacks.contains(of) { 1 } else { 1 + width + 1 };
            assert_eq!((numbers.len(), numbers_there.len()), (expected, expected), "{of:?}");
            assert_eq!(numbers[0].is_none(), lacks.contains(of), "{of:?}");
            let near = |(a, b): (&Option<f64>, &Option<f64>)| a.unwrap_or(9.0) - b.unwrap_or(9.0);
            let both = numbers.iter().zip(numbers_there);
            assert!(both.map(near).all(|off| off.abs() < 1e-5), "{of:?}: {numbers:?} {numbers_there:?}");
        }
    }
}
