//! `CREATE FUNCTION … LANGUAGE TORCH`: modules that libtorch wrote, loaded and called from SQL.

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use intentcast::commands::format::Format;
use intentcast::commands::shell::Shell;
use intentcast::config::Config;
use intentcast::engine;
use intentcast::failure::{Failure, Result};
use intentcast::score::torch_functions;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tch::{CModule, Kind, Tensor};

use crate::support::server::{Server, clients_are_here};
use crate::support::shop::{done, query, shop};

type Traced = dyn FnMut(&[Tensor]) -> Tensor;

/// Traces `body` on the example `inputs` and writes it as a module.
fn save(path: &Path, inputs: &[Tensor], body: &mut Traced) {
    let _guard = tch::no_grad_guard();
    let module = CModule::create_by_tracing("Traced", "forward", inputs, &mut |xs: &[Tensor]| vec![body(xs)]);
    module.unwrap().save(path).unwrap();
}

/// A folder of modules and a session that can use them.
struct Modules {
    folder: tempfile::TempDir,
    config: Config,
    ctx: SessionContext,
}

impl Modules {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.functions.folders = vec![folder.path().display().to_string()];
        config.engine.partitions = 2;
        let ctx = engine::session(&config).unwrap();
        Self { folder, config, ctx }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn save(&self, name: &str, inputs: &[Tensor], mut body: impl FnMut(&[Tensor]) -> Tensor + 'static) {
        save(&self.path(name), inputs, &mut body);
    }

    async fn create(&self, declaration: &str, name: &str) -> Result<()> {
        let path = self.path(name);
        self.run(&format!("CREATE FUNCTION {declaration} LANGUAGE TORCH AS '{}'", path.display())).await.map(drop)
    }

    async fn run(&self, sql: &str) -> Result<Vec<RecordBatch>> {
        Ok(self.ctx.sql(sql).await?.collect().await?)
    }

    async fn rows(&self, sql: &str) -> String {
        pretty_format_batches(&self.run(sql).await.unwrap()).unwrap().to_string()
    }

    async fn refused(&self, sql: &str, code: u8, parts: &[&str]) -> Failure {
        let failure = self.run(sql).await.unwrap_err();
        assert_eq!(failure.kind.exit_code(), code, "{sql}: {failure}");
        for part in parts {
            assert!(failure.to_string().contains(part), "{sql}: expected {part} in: {failure}");
        }
        failure
    }
}

fn floats(rows: i64) -> Tensor {
    Tensor::ones([rows], (Kind::Float, tch::Device::Cpu))
}

#[test]
fn the_documented_example_runs_as_documented() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("modules")).unwrap();
    let inputs = [floats(2).to_kind(Kind::Double), Tensor::ones([2, 4], (Kind::Float, tch::Device::Cpu))];
    // `to_kind` does not fit: tracing it would store this machine's device.
    let mut appeal = |xs: &[Tensor]| xs[1].sum_dim_intlist(1i64, false, Kind::Double) / &xs[0];
    save(&folder.path().join("modules/appeal.pt"), &inputs, &mut appeal);

    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/models/functions.md")).unwrap();
    let block = |language: &str| {
        let from = page.split(&format!("```{language}\n")).nth(1).unwrap_or_else(|| panic!("no {language} block"));
        from.split("```").next().unwrap()
    };
    let ran = Command::new(env!("CARGO_BIN_EXE_intentcast"))
        .current_dir(folder.path())
        .args(["sql", "--set", "functions.folders=modules", "--format", "csv", "-c", block("sql")])
        .output()
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), block("csv"));

    let nowhere = Command::new(env!("CARGO_BIN_EXE_intentcast"))
        .current_dir(folder.path())
        .args(["sql", "-c", block("sql")])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&nowhere.stderr);
    assert_eq!(nowhere.status.code(), Some(2), "{errors}");
    assert!(errors.contains("functions.folders, which are: none"), "{errors}");
}

#[tokio::test]
async fn every_type_passes_through_unchanged() {
    let modules = Modules::new();
    for (name, example) in [
        ("FLOAT", floats(2)),
        ("DOUBLE", floats(2).to_kind(Kind::Double)),
        ("INT", floats(2).to_kind(Kind::Int)),
        ("BIGINT", floats(2).to_kind(Kind::Int64)),
        ("BOOLEAN", floats(2).to_kind(Kind::Bool)),
    ] {
        let file = format!("{name}.pt");
        modules.save(&file, &[example], |xs| xs[0].shallow_clone() * 1i64);
        if name == "BOOLEAN" {
            modules.save(&file, &[floats(2).to_kind(Kind::Bool)], |xs| xs[0].logical_not());
        }
        modules.create(&format!("same_{name}(x {name}) RETURNS {name}"), &file).await.unwrap();
        modules.create(&format!("list_{name}(x {name}[]) RETURNS {name}[]"), &file).await.unwrap();
        modules.create(&format!("two_{name}(x {name}[2]) RETURNS {name}[2]"), &file).await.unwrap();
        let (one, wanted) = match name {
            "BOOLEAN" => ("false", "true"),
            "FLOAT" | "DOUBLE" => ("1.5", "1.5"),
            _ => ("9007199", "9007199"),
        };
        let sql = format!(
            "SELECT same_{name}({one}) AS a, list_{name}([{one}, {one}, {one}]) AS b, two_{name}([{one}, {one}]) AS c"
        );
        let shown = modules.rows(&sql).await;
        for part in
            [format!("| {wanted} "), format!("[{wanted}, {wanted}, {wanted}]"), format!("[{wanted}, {wanted}] ")]
        {
            assert!(shown.contains(&part), "{name}: {part} in\n{shown}");
        }
    }
    // Integers that a double cannot hold.
    let shown = modules.rows("SELECT same_bigint(9007199254740993) AS a").await;
    assert!(shown.contains("9007199254740993"), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_go_in_batches_and_a_process_loads_a_module_once() {
    let mut modules = Modules::new();
    modules.config.functions.batch_values_max = 100;
    modules.ctx = engine::session(&modules.config).unwrap();
    let inputs = [floats(2), Tensor::ones([2, 3], (Kind::Float, tch::Device::Cpu))];
    modules.save("dot.pt", &inputs, |xs| &xs[0] + xs[1].sum_dim_intlist(1i64, false, None::<Kind>));
    modules.create("dot(a FLOAT, b FLOAT[]) RETURNS FLOAT", "dot.pt").await.unwrap();
    let wrong = modules
        .rows(
            "SELECT count(*) AS rows, count(*) FILTER (WHERE dot(v, make_array(v, 1, 2)) <> 2 * v + 3) AS wrong \
             FROM (SELECT CAST(v AS FLOAT) AS v FROM generate_series(1, 20000) AS s(v))",
        )
        .await;
    assert!(wrong.contains("| 20000 | 0     |"), "{wrong}");
    // Four numbers a row, so 25 rows a pass; some passes are cut short by the end of a batch.
    let state = modules.ctx.state();
    let module = torch_functions::as_torch_function(&state.scalar_functions()["dot"]).unwrap().module().unwrap();
    let passes = module.forward_passes.load(Ordering::Relaxed);
    assert!((800..1000).contains(&passes), "{passes}");
    // Another session, another name, the same bytes in another file: nothing is loaded again.
    std::fs::copy(modules.path("dot.pt"), modules.path("copy.pt")).unwrap();
    modules.ctx = engine::session(&modules.config).unwrap();
    modules.create("dot2(a FLOAT, b FLOAT[3]) RETURNS FLOAT", "copy.pt").await.unwrap();
    assert!(modules.rows("SELECT dot2(1, [1, 1, 1])").await.contains("4.0"));
    let state = modules.ctx.state();
    let copy = torch_functions::as_torch_function(&state.scalar_functions()["dot2"]).unwrap().module().unwrap();
    assert!(Arc::ptr_eq(module, copy));
}

#[tokio::test]
async fn nulls_stay_null_and_lists_are_batched_by_length() {
    let modules = Modules::new();
    let inputs = [Tensor::ones([2, 3], (Kind::Float, tch::Device::Cpu))];
    modules.save("mean.pt", &inputs, |xs| xs[0].mean_dim(1i64, false, Kind::Float));
    modules.create("mean_of(x FLOAT[]) RETURNS FLOAT", "mean.pt").await.unwrap();
    modules.create("mean_of_3(x FLOAT[3]) RETURNS FLOAT", "mean.pt").await.unwrap();
    let lists =
        "(VALUES (1, [1, 2, 3]), (2, NULL), (3, [4]), (4, [1, NULL, 3]), (5, [5, 5, 5]), (6, [1, 3])) AS t(id, x)";
    let shown = modules.rows(&format!("SELECT id, mean_of(x) AS m FROM {lists} ORDER BY id")).await;
    let column: Vec<&str> = shown.lines().skip(3).take(6).map(|l| l.split('|').nth(2).unwrap().trim()).collect();
    assert_eq!(column, ["2.0", "", "4.0", "", "5.0", "2.0"]);
    let ragged = format!("SELECT mean_of_3(x) FROM {lists}");
    modules.refused(&ragged, 2, &["mean_of_3", "argument x: expected 3 numbers, got 1 in row 3 of the batch"]).await;
    let none = modules
        .rows("SELECT mean_of(NULL) IS NULL AS a, count(mean_of([v])) AS b FROM generate_series(1, 0) AS s(v)")
        .await;
    assert!(none.contains("| true | 0 |"), "{none}");
}

#[tokio::test]
async fn a_module_that_breaks_its_declaration_is_refused() {
    let modules = Modules::new();
    modules.save("same.pt", &[floats(2)], |xs| &xs[0] * 1.0);
    modules.save("spread.pt", &[floats(2)], |xs| &xs[0] - xs[0].mean(Kind::Float));
    modules.save("total.pt", &[floats(2)], |xs| xs[0].sum(Kind::Float));
    std::fs::write(modules.path("broken.pt"), "no module").unwrap();
    let at = |declaration: &str, file: &str| {
        format!("CREATE FUNCTION {declaration} LANGUAGE TORCH AS '{}'", modules.path(file).display())
    };
    for (sql, code, parts) in [
        (at("f(x VARCHAR) RETURNS FLOAT", "same.pt"), 2, &["argument x", "expected FLOAT, DOUBLE", "got Utf8"][..]),
        (at("f(x FLOAT) RETURNS DATE", "same.pt"), 2, &["RETURNS", "got Date32"]),
        (at("f(x FLOAT[][]) RETURNS FLOAT", "same.pt"), 2, &["argument x"]),
        (at("f() RETURNS FLOAT", "same.pt"), 2, &["at least one argument"]),
        (at("f(x FLOAT)", "same.pt"), 2, &["expected RETURNS"]),
        (at("abs(x FLOAT) RETURNS FLOAT", "same.pt"), 2, &["built-in"]),
        (at("sum(x FLOAT) RETURNS FLOAT", "same.pt"), 2, &["built-in"]),
        (at("f(x FLOAT) RETURNS FLOAT", "same.pt").replace("TORCH", "C"), 2, &["expected LANGUAGE TORCH"]),
        (at("f(x FLOAT) RETURNS DOUBLE", "same.pt"), 6, &["Double [3]", "returned Float [3]", "same.pt"]),
        (at("f(x FLOAT) RETURNS FLOAT[2]", "same.pt"), 6, &["Float [3, 2]", "returned Float [3]"]),
        (at("f(x FLOAT) RETURNS FLOAT", "total.pt"), 6, &["returned Float []"]),
        (at("f(x FLOAT) RETURNS FLOAT", "spread.pt"), 6, &["a row alone has a different result"]),
        (at("f(x FLOAT, y FLOAT) RETURNS FLOAT", "same.pt"), 6, &["function f", "the module failed on"]),
        (at("f(x FLOAT) RETURNS FLOAT", "broken.pt"), 6, &["broken.pt", "not a TorchScript module"]),
        (at("f(x FLOAT) RETURNS FLOAT", "gone.pt"), 6, &["gone.pt", "no such module"]),
        (at("f(x FLOAT) RETURNS FLOAT", "../same.pt"), 2, &["functions.folders"]),
    ] {
        let failure = modules.refused(&sql, code, parts).await;
        assert!(failure.message.starts_with("CREATE FUNCTION "), "{failure}");
    }
    modules.refused("SELECT f(1)", 2, &["f"]).await;
}

#[tokio::test]
async fn a_module_that_fails_later_is_an_error_that_names_it() {
    let modules = Modules::new();
    let weights = Tensor::arange(8, (Kind::Float, tch::Device::Cpu)).view([4, 2]);
    let ids = [Tensor::from_slice(&[0i64, 1])];
    modules.save("embed.pt", &ids, move |xs| Tensor::embedding(&weights, &xs[0], -1, false, false));
    modules.create("embed(id BIGINT) RETURNS FLOAT[2]", "embed.pt").await.unwrap();
    modules
        .refused(
            "SELECT embed(v) FROM generate_series(1, 9) AS s(v)",
            6,
            &["function embed", "embed.pt", "index out of range"],
        )
        .await;
    // A shape that depends on the data: it fitted the declaration at creation, but does not now.
    modules.save("positive.pt", &[floats(2)], |xs| xs[0].masked_select(&xs[0].gt(-9.0)));
    modules.create("positive(x FLOAT) RETURNS FLOAT", "positive.pt").await.unwrap();
    modules
        .refused(
            "SELECT positive(v - 10) FROM generate_series(0, 2) AS s(v)",
            6,
            &["function positive", "[3] for 3 rows", "returned Float [1]"],
        )
        .await;
    modules.refused("SELECT embed('a')", 2, &["argument id: expected BIGINT, got Utf8"]).await;
    modules.refused("SELECT embed(1, 2)", 2, &["expected 1 arguments, got 2"]).await;
    assert!(modules.rows("SELECT embed(3) AS e").await.contains("[6.0, 7.0]"));
}

#[tokio::test]
async fn a_call_is_allowed_in_joins_and_skips_other_branches() {
    let modules = Modules::new();
    let weights = Tensor::arange(4, (Kind::Int64, tch::Device::Cpu)).view([4, 1]) * 10;
    let ids = [Tensor::from_slice(&[0i64, 1])];
    modules.save("ten.pt", &ids, move |xs| Tensor::embedding(&weights, &xs[0], -1, false, false));
    modules.create("ten_times(id BIGINT) RETURNS BIGINT", "ten.pt").await.unwrap();
    let joined =
        "SELECT a, b FROM generate_series(0, 3) AS s(a) JOIN generate_series(15, 25) AS t(b) ON ten_times(a) = b";
    assert!(modules.rows(joined).await.contains("| 2 | 20 |"));
    // An id above 3 is out of range, as every call with one says.
    let branch = "SELECT count(CASE WHEN v < 4 THEN ten_times(v) ELSE -v END) AS n FROM generate_series(0, 9) AS s(v)";
    assert!(modules.rows(branch).await.contains("| 10 |"));
}

#[tokio::test]
async fn functions_can_be_replaced_and_dropped_but_not_built_ins() {
    let modules = Modules::new();
    modules.save("one.pt", &[floats(2)], |xs| &xs[0] + 1.0);
    modules.save("two.pt", &[floats(2)], |xs| &xs[0] + 2.0);
    let statement = |verb: &str, name: &str, file: &str| {
        format!("{verb} FUNCTION {name}(x FLOAT) RETURNS FLOAT LANGUAGE torch AS '{}'", modules.path(file).display())
    };
    modules.run(&statement("CREATE", "Plus", "one.pt")).await.unwrap();
    modules.refused(&statement("CREATE", "plus", "two.pt"), 2, &["OR REPLACE"]).await;
    assert!(modules.rows("SELECT plus(1)").await.contains("2.0"));
    modules.run(&statement("CREATE OR REPLACE", "plus", "two.pt")).await.unwrap();
    assert!(modules.rows("SELECT PLUS(1)").await.contains("3.0"));

    let session = Shell {
        ctx: modules.ctx.clone(),
        format: Format::Csv,
        views: Default::default(),
        has_nights: true,
        workspace: None,
    };
    let shell = |sql: &'static str| session.run(sql);
    for (sql, part) in [("DROP FUNCTION abs", "built in"), ("DROP FUNCTION nothing", "no such function")] {
        let failure = shell(sql).await.unwrap_err();
        assert_eq!(failure.kind.exit_code(), 2, "{failure}");
        assert!(failure.message.contains(part), "{failure}");
    }
    shell("DROP FUNCTION IF EXISTS nothing; DROP FUNCTION Plus").await.unwrap();
    assert_eq!(shell("SELECT plus(1)").await.unwrap_err().kind.exit_code(), 2);
    modules.run(&statement("CREATE", "plus", "one.pt")).await.unwrap();
}

#[test]
fn a_night_uses_sql_functions_and_reruns_when_a_module_changes() {
    let (_own, lake, output) = shop();
    let modules = Modules::new();
    let sql = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = sql.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let module = modules.path("above.pt");
    write(
        "functions/above.sql",
        &format!(
            "-- whether a probability is above the module's threshold\n\
         CREATE FUNCTION above(p DOUBLE) RETURNS BOOLEAN LANGUAGE TORCH AS '{}';\n",
            module.display()
        ),
    );
    write(
        "score/segments.sql",
        "-- one row per user_id\nSELECT user_id, CASE WHEN above(p_purchase) THEN 'hot' ELSE 'cold' END AS segment FROM intent_scores\n",
    );
    let settings = [
        "--set".to_string(),
        format!("functions.folders={}", modules.folder.path().display()),
        "--set".into(),
        format!("sql.folder={}", sql.path().display()),
        // Each part has a session of its own.
        "--set".into(),
        "engine.user_parts=2".into(),
    ];
    let settings: Vec<&str> = settings.iter().map(String::as_str).collect();
    let places = ["nightly", "--lake", &lake, "--output", &output, "--date", "2026-02-21"];
    let segments = || query(&output, "SELECT DISTINCT segment FROM intent");
    for (threshold, segment) in [(-1.0, "hot"), (2.0, "cold")] {
        modules.save("above.pt", &[floats(2).to_kind(Kind::Double)], move |xs| xs[0].gt(threshold));
        done(&[&settings[..], &places].concat());
        assert_eq!(segments(), format!("segment\n{segment}\n"));
    }
    let again = done(&[&settings[..], &places].concat());
    assert!(again.contains("already published"), "{again}");
    let shown = done(
        &[
            &settings[..],
            &[
                "sql",
                "--lake",
                &lake,
                "--output",
                &output,
                "--format",
                "csv",
                "-c",
                "SELECT above(CAST(3 AS DOUBLE)) AS a",
            ],
        ]
        .concat(),
    );
    assert_eq!(shown, "a\ntrue\n");
    // Analysts call it over the wire, and cannot define another one there.
    if clients_are_here("a_night_uses_sql_functions_and_reruns_when_a_module_changes") {
        let folders: Vec<&str> = settings.iter().copied().filter(|setting| *setting != "--set").collect();
        let server = Server::start(&folders, &["--lake", &lake, "--output", &output]);
        let called = "SELECT above(3.0::double), bool_or(above(p_purchase)) FROM intent";
        assert_eq!(server.rows(called), ["t,f"]);
        let module = module.display();
        let defined = format!("CREATE FUNCTION own(p DOUBLE) RETURNS BOOLEAN LANGUAGE TORCH AS '{module}'");
        let refusal = server.refused(&defined);
        assert!(refusal.contains("25006") || refusal.contains("42601"), "{refusal}");
    }
}
