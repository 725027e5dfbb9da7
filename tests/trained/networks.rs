//! Every backbone, head, loss and demand network from training through the bundle to `score_intents` and `forecast_demand`, at
//! tiny sizes; and the refusal of unusable training sets and damaged bundles.

use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{Float64Type, Int32Type};
use chrono::Datelike;
use datafusion::datasource::MemTable;
use datafusion::prelude::{ParquetReadOptions, SessionContext};
use intentcast::config::networks::{
    AmountLossName, Augmentation, BackboneName, ClassWeights, DemandNetworkName, FusionName, HeadName, LossName,
    Pretraining, Unlabelled, name_of,
};
use intentcast::config::{Config, S3Config, ScoreConfig};
use intentcast::failure::Failure;
use intentcast::features::{Scope, contract};
use intentcast::ids::RunDate;
use intentcast::lake::stores::Location;
use intentcast::model::blend::Blend;
use intentcast::model::bundle::{BundleCard, BundleParts, FORMAT, Registry};
use intentcast::model::contents::Contents;
use intentcast::model::targets::{BINARY, OUTPUTS};
use intentcast::score::models::Models;
use intentcast::score::service::{ScoringService, as_struct};
use intentcast::training::bundle::{self, TrainingSets};
use intentcast::training::datasets::{BlockRows, ItemBlocks, LabelledUsers, Split, UserBlocks, UserColumns, split};
use intentcast::training::fitting::Journal;
use intentcast::workspace::{Access, Workspace};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use tch::{Device, Tensor};

use crate::support::stopping_store::StoppingStore;
use crate::support::training_shop::{DATE, HORIZON_DAYS, SHOP, date, tiny};
use crate::support::{device, lakes};

/// Trains on the shop with some settings changed.
fn fitted(change: impl FnOnce(&mut Config)) -> Result<(BundleCard, intentcast::model::bundle::Networks), Failure> {
    let mut config = tiny(&SHOP.folder);
    change(&mut config);
    bundle::fit_networks(&config, &SHOP.sets, &mut Journal::disabled())
}

/// Trains on sets that `spoil` has changed; the shop keeps its own.
fn fitted_on(spoil: impl FnOnce(&mut TrainingSets)) -> Result<BundleCard, Failure> {
    let mut sets = SHOP.sets.clone();
    spoil(&mut sets);
    bundle::fit_networks(&tiny(&SHOP.folder), &sets, &mut Journal::disabled()).map(|(card, _)| card)
}

/// Returns the users of the shop with some values changed.
fn changed(users: &UserBlocks, change: impl FnOnce(&mut LabelledUsers)) -> Arc<UserBlocks> {
    let columns = users.each_window().next().unwrap().unwrap();
    let mut labelled = columns.to_users();
    change(&mut labelled);
    Arc::new(UserBlocks::in_memory(UserColumns::from_users(&labelled, columns.features(), date()).unwrap()).unwrap())
}

fn registry(name: &str) -> Registry {
    Registry(Location::open(&format!("memory://{name}/models"), &S3Config::default()).unwrap())
}

type Change = fn(&mut Config);

/// Combinations that contain every name at least once; the names of a row are unrelated.
const COMBINATIONS: [(&str, Change); 12] = [
    ("transformer, bce, poisson; gru", |_| ()),
    ("causal, mse; lstm", |c| {
        c.model.backbone = BackboneName::Causal;
        c.model.amount_loss = AmountLossName::Mse;
        c.demand.network = DemandNetworkName::Lstm;
    }),
    ("lstm, mae; rnn", |c| {
        c.model.backbone = BackboneName::Lstm;
        c.model.amount_loss = AmountLossName::Mae;
        c.demand.network = DemandNetworkName::Rnn;
    }),
    ("gru, rmse; tcn", |c| {
        c.model.backbone = BackboneName::Gru;
        c.model.amount_loss = AmountLossName::Rmse;
        c.demand.network = DemandNetworkName::Tcn;
    }),
    ("rnn, huber", |c| {
        c.model.backbone = BackboneName::Rnn;
        c.model.amount_loss = AmountLossName::Huber;
    }),
    ("focal, tweedie", |c| {
        c.model.loss = LossName::Focal;
        c.model.amount_loss = AmountLossName::Tweedie;
    }),
    ("iou, negative binomial", |c| {
        c.model.loss = LossName::Iou;
        c.model.amount_loss = AmountLossName::NegativeBinomial;
    }),
    ("crf on a gru", |c| {
        c.model.backbone = BackboneName::Gru;
        (c.model.head, c.model.loss) = (HeadName::Crf, LossName::Crf);
    }),
    ("everything against overfitting, sampled softmax", |c| {
        c.model.class_weights = ClassWeights::Balanced;
        (c.train.label_smoothing, c.train.item_dropout) = (0.1, 0.2);
        c.train.augmentation = Augmentation::Both;
        c.train.full_softmax_items_max = 0;
    }),
    ("masked events first, then half of the labels and consistency", |c| {
        (c.train.pretraining, c.train.pretraining_epochs) = (Pretraining::Masked, 1);
        (c.train.labels_share, c.train.unlabelled) = (0.5, Unlabelled::Consistency);
    }),
    ("contrastive, then half of the labels and pseudo-labels", |c| {
        (c.train.pretraining, c.train.pretraining_epochs) = (Pretraining::Contrastive, 1);
        (c.train.labels_share, c.train.unlabelled) = (0.5, Unlabelled::PseudoLabels);
        c.train.augmentation = Augmentation::All;
    }),
    ("next events first, causal", |c| {
        c.model.backbone = BackboneName::Causal;
        (c.train.pretraining, c.train.pretraining_epochs) = (Pretraining::NextEvent, 1);
    }),
];

/// Returns the names that a setting takes, as its refusal lists them.
fn names<T: serde::de::DeserializeOwned>() -> BTreeSet<String> {
    let refused = serde_json::from_value::<T>("unknown".into()).err().unwrap().to_string();
    let (_, known) = refused.split_once("expected").unwrap();
    known.split('`').skip(1).step_by(2).map(String::from).collect()
}

#[test]
fn every_name_is_in_a_combination() {
    let of = |name: &dyn Fn(&Config) -> String| -> BTreeSet<String> {
        let configs = COMBINATIONS.iter().map(|(_, change)| {
            let mut config = Config::default();
            change(&mut config);
            config
        });
        configs.map(|config| name(&config)).collect()
    };
    assert_eq!(of(&|c| name_of(&c.model.backbone)), names::<BackboneName>());
    assert_eq!(of(&|c| name_of(&c.model.head)), names::<HeadName>());
    assert_eq!(of(&|c| name_of(&c.model.loss)), names::<LossName>());
    assert_eq!(of(&|c| name_of(&c.model.amount_loss)), names::<AmountLossName>());
    assert_eq!(of(&|c| name_of(&c.model.class_weights)), names::<ClassWeights>());
    assert_eq!(of(&|c| name_of(&c.train.pretraining)), names::<Pretraining>());
    assert_eq!(of(&|c| name_of(&c.train.unlabelled)), names::<Unlabelled>());
    assert_eq!(of(&|c| name_of(&c.demand.network)), names::<DemandNetworkName>());
}

/// Opens a session with the night's features and the functions of the models below `config.output`.
async fn session(config: &Config, models: &Arc<Models>) -> SessionContext {
    let workspace = Workspace::open(config, Arc::clone(models), Access::ReadWrite).await.unwrap();
    let rollups = workspace.rollups(date()).await.unwrap();
    let plain = workspace.session_as_of(&rollups, Scope::night(date())).await.unwrap();
    contract::register_model_input(&plain).await.unwrap();
    let ctx = workspace.session();
    // Materialised once: nine models score the same rows.
    for table in ["model_input", "item_history"] {
        let rows = plain.table(table).await.unwrap();
        let schema = Arc::new(rows.schema().as_arrow().clone());
        let rows = rows.collect().await.unwrap();
        ctx.register_table(table, Arc::new(MemTable::try_new(schema, vec![rows]).unwrap())).unwrap();
    }
    ctx
}

async fn query(ctx: &SessionContext, sql: &str) -> RecordBatch {
    let batches = ctx.sql(sql).await.unwrap().collect().await.unwrap();
    arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap()
}

fn column(batch: &RecordBatch, at: usize) -> Vec<f64> {
    batch.column(at).as_primitive::<Float64Type>().values().to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_network_head_and_loss_trains_and_scores() {
    let mut config = tiny(&SHOP.folder);
    config.output.uri = SHOP.folder.path().join("all").display().to_string();
    let registry = Registry(Location::open(&config.output.uri, &config.s3).unwrap().folder("models"));
    let mut versions = Vec::new();
    for (name, change) in COMBINATIONS {
        let (card, networks) = fitted(change).unwrap_or_else(|f| panic!("{name}: {f}"));
        for figure in ["parameters_intent", "pinball_test", "users_scored_per_second"] {
            assert!(card.figures[figure] > 0.0, "{name}: {figure}");
        }
        // After one epoch over so few users, all of them may be ranked wrong.
        for figure in ["auc_test_view", "ap_test_view"] {
            assert!((0.0..=1.0).contains(&card.figures[figure]), "{name}: {figure}");
        }
        let card = registry
            .write(card, BundleParts { networks: &networks, items: &[], contents: &Contents::default(), encoders: &[] })
            .await
            .unwrap();
        assert!(!versions.contains(&(name, card.version.clone())));
        versions.push((name, card.version));
    }
    registry.promote(&versions[0].1).await.unwrap();
    let models = Arc::new(Models::new(&config).unwrap());
    let ctx = session(&config, &models).await;
    for (name, version) in &versions {
        intents_are_sound(&ctx, name, version).await;
        forecasts_are_sound(&ctx, name, version).await;
        members_equal_the_batch(&ctx, &registry, name, version).await;
    }
}

async fn intents_are_sound(ctx: &SessionContext, name: &str, version: &str) {
    let sql = format!(
        "SELECT {} FROM (SELECT score_intents(features, '{version}') AS s FROM model_input)",
        OUTPUTS.map(|output| format!("s['{output}']")).join(", ")
    );
    let scores = query(ctx, &sql).await;
    assert!(scores.num_rows() >= 100, "{name}: {} users", scores.num_rows());
    for at in 0..OUTPUTS.len() {
        let values = column(&scores, at);
        let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(*v), h.max(*v)));
        assert!(
            low >= 0.0 && (at >= BINARY || high <= 1.0) && high.is_finite(),
            "{name}: column {at}, {low} to {high}"
        );
        assert!(high > low, "{name}: column {at} is {low} for everybody");
    }
}

async fn forecasts_are_sound(ctx: &SessionContext, name: &str, version: &str) {
    let sql = format!(
        "SELECT f['step'], f['mean'], f['q05'], f['q10'], f['q25'], f['q50'], f['q75'], f['q90'], f['q95'] \
         FROM (SELECT unnest(forecast_demand(history, '{version}')) AS f FROM item_history)"
    );
    let forecasts = query(ctx, &sql).await;
    assert_eq!(forecasts.num_rows() % (HORIZON_DAYS + 1), 0, "{name}");
    assert!(forecasts.num_rows() >= 10 * (HORIZON_DAYS + 1), "{name}");
    let steps = forecasts.column(0).as_primitive::<Int32Type>().values();
    assert_eq!(steps[..=HORIZON_DAYS], (0..=HORIZON_DAYS as i32).collect::<Vec<_>>());
    let columns: Vec<Vec<f64>> = (1..9).map(|at| column(&forecasts, at)).collect();
    for row in 0..forecasts.num_rows() {
        let quantiles: Vec<f64> = columns[1..].iter().map(|c| c[row]).collect();
        assert!(columns[0][row] >= 0.0 && quantiles[0] >= 0.0, "{name}: {quantiles:?}");
        assert!(quantiles.windows(2).all(|w| w[0] <= w[1]), "{name}: {quantiles:?}");
    }
    let sold = columns[0].iter().filter(|m| **m > 0.0).count();
    assert!(sold * 2 > forecasts.num_rows(), "{name}: {sold} forecasts above zero");
}

#[tokio::test(flavor = "multi_thread")]
async fn published_intents_are_the_blend_of_the_network_and_the_trees() {
    let mut config = tiny(&SHOP.folder);
    config.output.uri = SHOP.folder.path().join("blend").display().to_string();
    let registry = Registry(Location::open(&config.output.uri, &config.s3).unwrap().folder("models"));
    let write = async |change: fn(&mut Config)| {
        let (card, networks) = fitted(change).unwrap();
        let parts = BundleParts { networks: &networks, items: &[], contents: &Contents::default(), encoders: &[] };
        registry.write(card, parts).await.unwrap()
    };
    let with_trees = write(|_| ()).await;
    let without = write(|config| config.intents.trees = false).await;
    assert!(with_trees.trees_hash.is_some() && without.trees_hash.is_none());
    assert_ne!(with_trees.version, without.version);
    registry.promote(&with_trees.version).await.unwrap();
    let ctx = session(&config, &Arc::new(Models::new(&config).unwrap())).await;
    // The published probability, the network's and the trees', and the user's events of 28 days and of all time.
    let members = async |version: &str, output: &str| {
        let sql = format!(
            "SELECT s['{output}'], s['members']['network']['{output}'] AS network, s['members']['trees']['{output}'] AS trees, \
             CAST(features['events_28d'] AS DOUBLE), CAST(features['events_lifetime'] AS DOUBLE) \
             FROM (SELECT features, score_intents(features, '{version}', 'members') AS s FROM model_input)"
        );
        query(&ctx, &sql).await
    };
    let blends = serde_json::to_value(&with_trees.blend).unwrap();
    let number = |value: &serde_json::Value| value.as_f64().unwrap();
    let logit = |p: f64| (p / (1.0 - p)).ln();
    let mut varied = 0;
    for (name, blend) in blends.as_object().unwrap() {
        let rows = members("", &format!("p_{name}")).await;
        let [published, network, trees, events, seen] = [0, 1, 2, 3, 4].map(|at| column(&rows, at));
        assert!(published.len() >= 100);
        for row in 0..published.len() {
            let class = if events[row] >= 10.0 { 2 } else { usize::from(events[row] > 0.0) };
            let weight = number(&blend["network_weights"][class]);
            let combined = weight * logit(network[row]) + (1.0 - weight) * logit(trees[row]);
            let blended = 1.0 / (1.0 + (-(number(&blend["slope"]) * combined + number(&blend["intercept"]))).exp());
            let expected = if seen[row] == 0.0 { network[row] } else { blended };
            assert!((published[row] - expected).abs() < 1e-4, "{name}, row {row}: {}, {expected}", published[row]);
        }
        varied += usize::from(trees.iter().any(|p| (*p - trees[0]).abs() > 1e-3));
    }
    assert!(varied > 0, "trees tell users from one another");

    let rows = members(&without.version, "p_view").await;
    assert_eq!(column(&rows, 0), column(&rows, 1), "the network alone");
    assert_eq!(rows.column(2).null_count(), rows.num_rows());
    let unknown =
        ctx.sql("SELECT score_intents(features, '', 'trees') FROM model_input").await.unwrap().collect().await;
    let refused = unknown.unwrap_err().to_string();
    assert!(refused.contains("expected the word members as the third argument, got trees"), "{refused}");
}

/// Other tests train in this process and share libtorch's random numbers, so this one runs the binary.
#[test]
fn held_out_users_are_learnt_from_once_the_figures_are_known() {
    let folder = tempfile::tempdir().unwrap();
    let lake = SHOP.folder.path().join("lake").display().to_string();
    let [without, with] = ["0", "1"].map(|epochs| {
        let (output, setting) =
            (folder.path().join(epochs).display().to_string(), format!("train.refit_epochs={epochs}"));
        let (code, errors) = run(&["--set", &setting, "train", "--lake", &lake, "--output", &output, "--date", DATE]);
        assert_eq!(code, 0, "{errors}");
        card_of_champion(&output)
    });
    if device::repeats_to_the_bit() {
        assert_ne!(without.weights_hash, with.weights_hash);
        assert_eq!(without.trees_hash, with.trees_hash, "they learn from the held-out users in both");
        for figure in ["auc_test_view", "log_loss_test_view", "auc_test_view_network", "log_loss_valid"] {
            assert_eq!(without.figures[figure], with.figures[figure], "{figure} is of users that were held out");
        }
    }
    let refitted = |card: &BundleCard| card.figures.contains_key("train_seconds_intent_refit");
    assert_eq!((refitted(&without), refitted(&with)), (false, true));
}

fn card_of_champion(output: &str) -> BundleCard {
    let champion = std::fs::read_to_string(format!("{output}/models/champion")).unwrap();
    let card = std::fs::read_to_string(format!("{output}/models/{}/bundle.json", champion.trim())).unwrap();
    serde_json::from_str(&card).unwrap()
}

async fn members_equal_the_batch(ctx: &SessionContext, registry: &Registry, name: &str, version: &str) {
    let features = query(ctx, "SELECT features FROM model_input ORDER BY user_id LIMIT 60").await;
    let features: StructArray = as_struct(features.column(0)).unwrap().clone();
    let start = async || {
        let bundle = registry.load(version, Device::Cpu).await.unwrap();
        ScoringService::start(bundle, &ScoreConfig::default()).unwrap()
    };
    let all = start().await.score(&features).await.unwrap().scores;
    // A new service, so that no cached state answers.
    let alone = start().await;
    for user in [0, 17, 59] {
        let one = alone.score(&features.slice(user, 1)).await.unwrap().scores;
        let apart = one.iter().zip(&all[user * 9..]).map(|(a, b)| (a - b).abs() / a.abs().max(1.0));
        assert!(apart.fold(0.0, f32::max) < 1e-5, "{name}: user {user}");
    }
}

/// A small encoder reads titles; the lake supplies vectors of pictures and of video frames. The same model then scores the lake
/// without each of the three.
#[test]
fn every_fusion_trains_and_its_scores_follow_the_contents() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake");
    lakes::copy(&SHOP.folder.path().join("lake"), &lake);
    let frames = "SELECT *, make_array(make_array(0.5, CAST(substr(item_id, 2) AS DOUBLE)), make_array(-1.0, 0.25)) \
                  AS video_frames FROM rows";
    lakes::rewrite(&lake.join("items/part-00000.parquet"), frames);
    let blind = [("title", "Utf8"), ("image_vector", "List(Float32)"), ("video_frames", "List(List(Float64))")].map(
        |(column, kind)| {
            let without = folder.path().join(column);
            lakes::copy(&lake, &without);
            let hide = format!("SELECT * EXCLUDE ({column}), arrow_cast(NULL, '{kind}') AS {column} FROM rows");
            lakes::rewrite(&without.join("items/part-00000.parquet"), &hide);
            (column, without)
        },
    );
    let encoder = format!("model.text_encoder={}/tests/fixtures/text/minilm", env!("CARGO_MANIFEST_DIR"));
    // One output, so that the rollups of each lake are built once.
    let output = folder.path().join("out").display().to_string();
    for fusion in FusionName::ALL {
        let (setting, lake) = (format!("model.fusion={}", name_of(&fusion)), lake.display().to_string());
        let settings = ["--set", &setting, "--set", &encoder];
        let train = ["train", "--lake", &lake, "--output", &output, "--date", DATE];
        let (code, errors) = run(&[&settings[..], &train].concat());
        assert_eq!(code, 0, "{fusion:?}: {errors}");
        let champion = std::fs::read_to_string(format!("{output}/models/champion")).unwrap();
        let card = std::fs::read(format!("{output}/models/{}/bundle.json", champion.trim())).unwrap();
        let card: BundleCard = serde_json::from_slice(&card).unwrap();
        assert_eq!((card.intent.fusion, card.intent.content_dims.map(|dims| dims > 0)), (fusion, [true; 3]));

        let scores = |lake: &str| -> Vec<(String, f64)> {
            let query = "SELECT user_id, score_intents(features)['p_purchase'] FROM model_input ORDER BY user_id";
            let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
            command.args(["--set", &device::setting()]).args(settings).args([
                "sql",
                "--refresh",
                "--lake",
                lake,
                "--output",
                &output,
            ]);
            let done = command.args(["--date", DATE, "--format", "csv", "-c", query]).output().unwrap();
            assert!(done.status.success(), "{fusion:?}: {}", String::from_utf8_lossy(&done.stderr));
            let rows = String::from_utf8(done.stdout).unwrap();
            let row =
                |line: &str| line.split_once(',').map(|(user, p)| (user.to_string(), p.parse().unwrap())).unwrap();
            rows.lines().skip(1).map(row).collect()
        };
        let seeing = scores(&lake);
        for (column, without) in &blind {
            let blind = scores(without.to_str().unwrap());
            assert!(seeing.len() > 100 && seeing.iter().map(|(user, _)| user).eq(blind.iter().map(|(user, _)| user)));
            assert!(seeing.iter().chain(&blind).all(|(_, p)| (0.0..=1.0).contains(p)), "{fusion:?}");
            let apart = seeing.iter().zip(&blind).filter(|((_, a), (_, b))| (a - b).abs() > 1e-6).count();
            assert!(apart * 2 > seeing.len(), "{fusion:?} without {column}: {apart} of {} scores moved", seeing.len());
        }
        // The next training becomes champion only where there is none.
        std::fs::remove_file(format!("{output}/models/champion")).unwrap();
    }
}

fn run(arguments: &[&str]) -> (i32, String) {
    const TINY: &str = "model.width=8 model.layers=1 model.heads=2 model.item_buckets=100 demand.width=8 \
                        demand.horizon_days=7 train.as_of_dates=2 demand.as_of_dates=2 train.epochs_max=2 train.batch_rows=32 \
                        train.augmentation=both train.item_dropout=0.1 demand.network=tcn";
    let settings: Vec<&str> = TINY.split_whitespace().flat_map(|pair| ["--set", pair]).collect();
    let mut command = Command::new(env!("CARGO_BIN_EXE_intentcast"));
    command.args(["--set", &device::setting()]).args(settings).args(arguments);
    let output = command.output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Writes the lake with another future: no event and no stock from the date on, and purchases of the day before arrive after
/// midnight. Facts known in advance (promotions) or valid at once (consent, erasures) stay.
async fn of_another_future(lake: &Path, other: &Path) {
    lakes::copy(lake, other);
    let mut gone = 0;
    for day in std::fs::read_dir(lake.join("events")).unwrap().map(|d| d.unwrap().file_name().into_string().unwrap()) {
        if day.strip_prefix("dt=").unwrap().parse::<RunDate>().unwrap() >= date() {
            std::fs::remove_dir_all(other.join("events").join(&day)).unwrap();
            gone += 1;
        }
    }
    let ctx = SessionContext::new();
    let stock = "inventory/part-00000.parquet";
    let (from, to) = (lake.join(stock), other.join(stock));
    ctx.register_parquet("stock", from.to_str().unwrap(), ParquetReadOptions::default()).await.unwrap();
    std::fs::remove_file(&to).unwrap();
    let before = ctx.sql(&format!("SELECT * FROM stock WHERE as_of < DATE '{DATE}'")).await.unwrap();
    let counted = ctx.table("stock").await.unwrap().count().await.unwrap() - before.clone().count().await.unwrap();
    lakes::save(before, &to).await;
    assert!(gone > 0 && counted > 0, "the lake has no future: {gone} days, {counted} of stock");

    let eve = date().plus_days(-1);
    let late = format!(
        "SELECT concat('late', value) AS event_id, concat('u', lpad(CAST(value AS VARCHAR), 7, '0')) AS user_id, \
         TIMESTAMP '{eve}T12:00:00' AS ts, TIMESTAMP '{DATE}T00:30:00' AS arrived_at, 'purchase' AS event_type, \
         'i000001' AS item_id, 1 AS quantity FROM generate_series(0, 99)"
    );
    lakes::write(other, &format!("events/dt={eve}/late.parquet"), &late).await;
}

/// Uses processes of its own: libtorch has one generator per process, and other tests draw from it too.
#[test]
fn the_same_lake_and_seed_give_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let lake = SHOP.folder.path().join("lake").display().to_string();
    let other = folder.path().join("other");
    tokio::runtime::Runtime::new().unwrap().block_on(of_another_future(Path::new(&lake), &other));
    let lakes = [&lake, &lake, &other.display().to_string()];
    let outputs = ["a", "b", "c"].map(|name| folder.path().join(name).display().to_string());
    let hashes = [0, 1, 2].map(|n| {
        let (lake, output) = (lakes[n], &outputs[n]);
        let (code, errors) = run(&["train", "--lake", lake, "--output", output, "--date", DATE]);
        assert_eq!(code, 0, "{errors}");
        let card = card_of_champion(output);
        assert_eq!(card.settings["train"]["augmentation"], "both");
        (card.weights_hash, card.trees_hash)
    });
    if device::repeats_to_the_bit() {
        assert_eq!(hashes[0], hashes[1]);
        assert_eq!(hashes[0], hashes[2], "something at or after the date was read");
    }

    // Months after the last event there are no positive labels.
    let champion = std::fs::read(format!("{}/models/champion", outputs[0])).unwrap();
    let (code, errors) = run(&["train", "--lake", &lake, "--output", &outputs[0], "--date", "2026-05-20"]);
    assert_eq!(code, 3, "{errors}");
    assert!(errors.contains("there is no positive label") && errors.contains("hint:"), "{errors}");
    assert_eq!(std::fs::read(format!("{}/models/champion", outputs[0])).unwrap(), champion);
    let versions = std::fs::read_dir(format!("{}/models", outputs[0])).unwrap().count();
    assert_eq!(versions, 3, "the champion's pointer, its folder and the decisions");
}

#[test]
fn too_few_selling_items_are_refused_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let lake = folder.path().join("lake").display().to_string();
    let output = folder.path().join("out").display().to_string();
    let shop = ["--users", "120", "--items", "1", "--days", "60"];
    assert_eq!(run(&[&["simulate", "--to", &lake], shop.as_slice()].concat()).0, 0);
    let (code, errors) = run(&["train", "--lake", &lake, "--output", &output, "--date", DATE]);
    assert_eq!(code, 3, "{errors}");
    assert!(errors.contains("expected at least 8 histories of items that sell, got 2"), "{errors}");
    assert!(errors.contains("hint: raise demand.as_of_dates") && !errors.contains("intents: epoch"), "{errors}");
    assert!(!Path::new(&output).join("models").exists(), "a model was written");
}

#[test]
fn a_lake_without_reviews_trains_the_other_intents() {
    let folder = tempfile::tempdir().unwrap();
    let (lake, output) = (folder.path().join("lake"), folder.path().join("out").display().to_string());
    lakes::copy(&SHOP.folder.path().join("lake"), &lake);
    for day in std::fs::read_dir(lake.join("events")).unwrap().map(|day| day.unwrap().path()) {
        for file in std::fs::read_dir(day).unwrap().map(|file| file.unwrap().path()) {
            lakes::rewrite(&file, "SELECT * FROM rows WHERE event_type <> 'review'");
        }
    }
    let (code, errors) = run(&["train", "--lake", lake.to_str().unwrap(), "--output", &output, "--date", DATE]);
    assert_eq!(code, 0, "{errors}");
    assert!(errors.contains("training: no figures for y_review: all labels have the same class"), "{errors}");
    let champion = std::fs::read_to_string(format!("{output}/models/champion")).unwrap();
    let card = std::fs::read_to_string(format!("{output}/models/{}/bundle.json", champion.trim())).unwrap();
    let card: BundleCard = serde_json::from_str(&card).unwrap();
    let has = |figure: &str| card.figures.contains_key(figure);
    assert!(!has("auc_test_review") && has("auc_test_view"), "{:?}", card.figures);
}

#[test]
fn null_and_constant_features_and_labels_of_one_class_train() {
    let card = fitted_on(|sets| {
        let features = sets.contract.0.len();
        let dull = |set: &mut LabelledUsers| {
            set.inputs.tabular.iter_mut().step_by(features).for_each(|v| *v = f32::NAN);
            set.inputs.tabular.iter_mut().skip(1).step_by(features).for_each(|v| *v = 4.0);
            // No user writes a review, every user views.
            set.labels.iter_mut().skip(5).step_by(9).filter(|y| !y.is_nan()).for_each(|y| *y = 0.0);
            set.labels.iter_mut().step_by(9).filter(|y| !y.is_nan()).for_each(|y| *y = 1.0);
        };
        sets.users = changed(&sets.users, dull);
        sets.held_out_users = changed(&sets.held_out_users, dull);
    })
    .unwrap();
    let has = |figure: &str| card.figures.contains_key(figure);
    assert!(!has("auc_test_view") && has("auc_test_search") && has("auc_test_churn"), "{:?}", card.figures);
    assert!(!has("ap_test_review"), "{:?}", card.figures);
    assert!(card.figures.values().all(|v| v.is_finite()), "{:?}", card.figures);
}

#[test]
fn a_nan_loss_stops_the_training_and_names_step_and_batch() {
    let failure = fitted_on(|sets| {
        let sick =
            |set: &mut LabelledUsers| set.inputs.events.iter_mut().flatten().for_each(|e| e.reals[0] = f32::INFINITY);
        sets.users = changed(&sets.users, sick);
    })
    .unwrap_err();
    assert_eq!(failure.kind.exit_code(), 6);
    let wanted = "training of intents stopped at step 1 (epoch 1, batch 1): the loss is NaN; the batch holds ";
    assert!(failure.message.starts_with(wanted) && failure.hint.is_some(), "{failure}");
}

#[test]
fn too_few_users_or_items_are_refused_with_the_minimum() {
    let few = fitted_on(|sets| {
        let columns = sets.users.each_window().next().unwrap().unwrap();
        let few = columns.take(&(0..9).collect::<Vec<_>>()).unwrap();
        sets.users = Arc::new(UserBlocks::in_memory(few).unwrap());
    })
    .unwrap_err();
    assert_eq!(few.kind.exit_code(), 3);
    assert!(few.message.contains("expected at least 20 users in the training split"), "{few}");
    let few = fitted_on(|sets| {
        let items = sets.items.train.each_window().next().unwrap().unwrap();
        sets.items.train = Arc::new(ItemBlocks::in_memory(items.take(&[0, 1, 2]).unwrap()).unwrap());
    });
    let few = few.unwrap_err();
    assert_eq!(few.kind.exit_code(), 3);
    assert!(few.message.contains("expected at least 8 histories of items that sell, got 3"), "{few}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_bundle_write_is_invisible() {
    let registry = registry("interrupted");
    let (card, networks) = fitted(|_| ()).unwrap();
    let champion = registry
        .write(
            card.clone(),
            BundleParts { networks: &networks, items: &[], contents: &Contents::default(), encoders: &[] },
        )
        .await
        .unwrap();
    registry.promote(&champion.version).await.unwrap();
    let (_, other) = fitted(|c| c.train.seed = 7).unwrap();
    for writes in 1..=5 {
        let (place, store) = StoppingStore::over(&registry.0, writes);
        let stopping = Registry(place);
        let none = Contents::default();
        let written = tokio::select! {
            written = stopping.write(card.clone(), BundleParts { networks: &other, items: &[], contents: &none, encoders: &[] }) => Some(written.unwrap()),
            () = store.stopped() => None,
        };
        assert!(written.is_none(), "the store did not stop after {writes} writes");
        let versions = registry.versions().await.unwrap();
        // The fifth and last write is the card: only then does the version exist.
        assert_eq!(versions.len(), if writes < 5 { 1 } else { 2 }, "after {writes} writes");
        assert_eq!(registry.load("", Device::Cpu).await.unwrap().card.version, champion.version);
    }
    let unfinished = registry.promote("20260220-00000000").await.unwrap_err();
    assert_eq!(unfinished.kind.exit_code(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn bundles_of_another_format_and_bad_weights_are_refused() {
    let registry = registry("sick");
    let (card, networks) = fitted(|_| ()).unwrap();
    let card = registry
        .write(card, BundleParts { networks: &networks, items: &[], contents: &Contents::default(), encoders: &[] })
        .await
        .unwrap();
    let folder = registry.0.folder(&card.version);
    let refused = async |part: &str| {
        let failure = registry.load(&card.version, Device::Cpu).await.unwrap_err();
        assert_eq!(failure.kind.exit_code(), 6);
        assert!(failure.message.contains(part) && failure.hint.is_some(), "{failure}");
    };
    let write_card = async |card: &BundleCard| {
        folder.write("bundle.json", serde_json::to_vec(card).unwrap()).await.unwrap();
    };
    for (format, part) in [(FORMAT + 1, "a newer intentcast"), (FORMAT - 4, "an older intentcast")] {
        write_card(&BundleCard { format, ..card.clone() }).await;
        refused(&format!("expected format {} to {FORMAT}, got {format}, which {part}", FORMAT - 3)).await;
        // A list of models shows the readable ones.
        assert!(registry.versions().await.unwrap().is_empty());
    }
    // Formats before have no trees, none of the demand, or no latest items: the networks alone are scored, or the taste alone.
    let before = [
        (FORMAT - 3, &["latest_items", "blend", "trees_hash", "demand_trees_hash"][..]),
        (FORMAT - 2, &["latest_items", "demand_trees_hash"]),
        (FORMAT - 1, &["latest_items"]),
    ];
    for (format, missing) in before {
        let mut older = serde_json::to_value(BundleCard { format, ..card.clone() }).unwrap();
        older.as_object_mut().unwrap().retain(|key, _| !missing.contains(&key.as_str()));
        older["demand"].as_object_mut().unwrap().remove("blend");
        folder.write("bundle.json", older.to_string()).await.unwrap();
        let loaded = registry.load(&card.version, Device::Cpu).await.unwrap();
        let has = (loaded.card.trees_hash.is_some(), loaded.card.demand_trees_hash, loaded.card.latest_items);
        let of_demand = card.demand_trees_hash.clone().filter(|_| format == FORMAT - 1);
        assert_eq!(has, (format > FORMAT - 3, of_demand, None));
    }
    // A newer format can differ anywhere, so its number is checked first.
    folder.write("bundle.json", "{\"format\": 99, \"towers\": []}").await.unwrap();
    refused("got 99").await;

    let file = tempfile::tempdir().unwrap().keep().join("weights.safetensors");
    let whole = folder.read("weights.safetensors").await.unwrap();
    std::fs::write(&file, &whole).unwrap();
    let mut weights = Tensor::read_safetensors(&file).unwrap();
    let (name, sick) = weights.iter_mut().find(|(name, _)| name.contains("head3")).unwrap();
    let name = name.clone();
    *sick = sick.copy() * f64::NAN;
    Tensor::write_safetensors(&weights, &file).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
    folder.write("weights.safetensors", bytes.clone()).await.unwrap();
    write_card(&card).await;
    refused("checksum mismatch").await;
    let weights_hash = blake3::hash(&bytes).to_hex()[..16].to_string();
    write_card(&BundleCard { weights_hash: weights_hash.clone(), ..card.clone() }).await;
    refused(&format!("{name} holds numbers that are not finite")).await;

    write_card(&card).await;
    folder.write("weights.safetensors", whole).await.unwrap();
    registry.load(&card.version, Device::Cpu).await.unwrap();
    folder.write("trees.safetensors", bytes.clone()).await.unwrap();
    refused("trees.safetensors: checksum mismatch").await;
    let trees_hash = Some(weights_hash.clone());
    write_card(&BundleCard { trees_hash, ..card.clone() }).await;
    refused("expected trees of the targets only").await;

    // The shop is too small for trees of the demand.
    folder.write("demand_trees.safetensors", bytes).await.unwrap();
    let without = BundleCard { trees_hash: None, blend: Blend::default(), ..card.clone() };
    for (hash, part) in
        [("0123", "demand_trees.safetensors: checksum mismatch"), (&weights_hash, "trees.day.mean is missing")]
    {
        write_card(&BundleCard { demand_trees_hash: Some(hash.into()), ..without.clone() }).await;
        refused(part).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unseen_item_and_category_leave_the_event_usable() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = tiny(&folder);
    lakes::copy(&SHOP.folder.path().join("lake"), folder.path());
    let lake = Path::new(&config.lake.uri);
    let rows: Vec<_> = [("looks", "view"), ("buys", "cart"), ("buys", "purchase")]
        .iter()
        .zip(["n1", "n2", "n3"])
        .map(|(&(user, kind), id)| (id, user, "2026-02-19T10:00:00", kind, "never-seen", "1", "9.5"))
        .collect();
    lakes::write(lake, "events/dt=2026-02-19/new.parquet", &lakes::events(&rows)).await;
    lakes::write(lake, "items/new.parquet", "SELECT 'never-seen' AS item_id, 'of-no-known-kind' AS category").await;
    config.output.uri = folder.path().join("out").display().to_string();
    let registry = Registry(Location::open(&config.output.uri, &config.s3).unwrap().folder("models"));
    let (card, networks) = tokio::task::spawn_blocking(|| fitted(|_| ()).unwrap()).await.unwrap();
    let card = registry
        .write(
            card,
            BundleParts { networks: &networks, items: &SHOP.sets.index, contents: &SHOP.sets.contents, encoders: &[] },
        )
        .await
        .unwrap();
    registry.promote(&card.version).await.unwrap();
    let ctx = session(&config, &Arc::new(Models::new(&config).unwrap())).await;
    let sql = "SELECT user_id, s['p_purchase'], s['p_view'], s['expected_spend'] \
               FROM (SELECT user_id, score_intents(features) AS s FROM model_input) \
               WHERE user_id IN ('looks', 'buys') ORDER BY user_id";
    let scores = query(&ctx, sql).await;
    assert_eq!(scores.num_rows(), 2);
    for at in 1..4 {
        let values = column(&scores, at);
        assert!(values.iter().all(|v| v.is_finite() && *v > 0.0), "{values:?}");
        assert_ne!(values[0], values[1], "what was done with it still counts");
    }
    let sql = "SELECT f['mean'] FROM (SELECT unnest(forecast_demand(history)) AS f FROM item_history \
               WHERE item_id = 'never-seen')";
    let sold = query(&ctx, sql).await;
    assert!(sold.num_rows() > 0 && column(&sold, 0).iter().all(|v| v.is_finite() && *v >= 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_beyond_memory_are_read_from_blocks_reproducibly() {
    let mut config = tiny(&SHOP.folder);
    config.output.uri = SHOP.folder.path().join("scarce").display().to_string();
    config.train.batch_rows = 16;
    config.train.memory_bytes_max = 100_000;
    let sets = bundle::gather_training_sets(&config, date()).await.unwrap();
    let windows = sets.users.windows(None).len();
    assert!(windows > 2, "{windows} windows of at most 25,000 bytes");
    assert_eq!(sets.users.len(), SHOP.sets.users.len());
    let fit = move || {
        let [one, other] = [(); 2].map(|()| bundle::fit_networks(&config, &sets, &mut Journal::disabled()).unwrap());
        assert_eq!(one.0.figures["users_train"], SHOP.sets.users.len() as f64);
        let weights = |networks: &intentcast::model::bundle::Networks| networks.intent_store.variables();
        for (name, weight) in weights(&one.1) {
            assert!(weight.equal(&weights(&other.1)[&name]) || !device::repeats_to_the_bit(), "{name}");
        }
    };
    tokio::task::spawn_blocking(fit).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_young_lake_gives_fewer_dates_and_validates_all() {
    let mut config = tiny(&SHOP.folder);
    config.output.uri = SHOP.folder.path().join("young").display().to_string();
    config.train.as_of_dates = 30;
    let sets = bundle::gather_training_sets(&config, date()).await.unwrap();
    // The lake begins on 1 January, and a date needs a week of history.
    let oldest = "2026-01-08".parse::<RunDate>().unwrap();
    let dates = &sets.as_of_dates;
    assert!(dates.len() > 2 && dates.len() < 30, "{dates:?}");
    let last = dates[dates.len() - 1];
    assert!(last >= oldest && last.plus_days(-7) < oldest, "{dates:?}");
    let mut judged: BTreeMap<bool, BTreeSet<i32>> = BTreeMap::new();
    for window in sets.held_out_users.each_window() {
        let window = window.unwrap();
        let as_of = window.batch().column_by_name("as_of").unwrap().as_primitive::<Int32Type>();
        for row in 0..window.len() {
            assert_ne!(split(window.id(row)), Split::Train);
            let tests = split(window.id(row)) == Split::Test;
            judged.entry(tests).or_default().insert(as_of.value(row));
        }
    }
    let days: Vec<i32> = dates.iter().map(|as_of| as_of.0.num_days_from_ce()).collect();
    let churn = date().plus_days(-i64::from(config.intents.churn_days)).0.num_days_from_ce();
    assert_eq!(judged[&true], BTreeSet::from([churn, days[0]]), "the test split is asked where a label is newest");
    assert!(judged[&false].iter().eq(days.iter().rev()), "{judged:?} {days:?}");
}

#[test]
fn training_labels_end_where_held_out_ones_begin() {
    let (dates, config) = (&SHOP.sets.as_of_dates, tiny(&SHOP.folder));
    assert!(dates[0].plus_days(config.intents.horizon_days.into()) <= date(), "labels end before the training date");
    assert!(dates[1].plus_days(config.intents.horizon_days.into()) <= dates[0]);
}

/// Counts the users of a split whose purchases are known at a date, and those whose churn is.
fn known_labels(users: &UserBlocks, as_of: RunDate, wanted: Split) -> [usize; 2] {
    let mut known = [0; 2];
    for window in users.each_window() {
        let window = window.unwrap();
        let dates = window.batch().column_by_name("as_of").unwrap().as_primitive::<Int32Type>();
        for row in window.rows_in(wanted).into_iter().filter(|&row| dates.value(row) == as_of.0.num_days_from_ce()) {
            let labels = &window.labels()[row * 9..(row + 1) * 9];
            known[0] += usize::from(!labels[4].is_nan());
            known[1] += usize::from(!labels[6].is_nan());
        }
    }
    known
}

#[test]
fn churn_is_learnt_only_where_its_label_is_known() {
    let (sets, config) = (&SHOP.sets, tiny(&SHOP.folder));
    let [newest, churn, oldest] = sets.as_of_dates[..] else { panic!("two dates and that of churn: {sets:?}") };
    assert_eq!(churn.plus_days(config.intents.churn_days.into()), date());
    let of = |users: &UserBlocks, as_of: RunDate, split: Split| known_labels(users, as_of, split).map(|n| n > 0);
    assert_eq!(of(&sets.users, newest, Split::Train), [false, false]);
    assert_eq!(of(&sets.users, churn, Split::Train), [true, false], "held out of it is churn alone");
    assert_eq!(of(&sets.users, oldest, Split::Train), [true, true]);
    assert_eq!(of(&sets.held_out_users, newest, Split::Test), [true, false]);
    assert_eq!(of(&sets.held_out_users, churn, Split::Test), [false, true]);
    assert_eq!(of(&sets.held_out_users, newest, Split::Valid), [true, false]);
    assert_eq!(of(&sets.held_out_users, oldest, Split::Valid), [true, true]);
}
