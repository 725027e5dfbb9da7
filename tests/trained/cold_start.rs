//! Cold start: items added after training are recommended by their contents, compared with popularity.

use std::path::Path;

use crate::support::lakes;
use crate::support::shop::done;

const TRAINED_ON: &str = "2026-04-05";
const NIGHT: &str = "2026-04-12";

/// Gives every second item another id after the training, as a new collection would have. Only its category, title and picture
/// are known then; nothing that was learnt by id applies.
fn renew(lake: &Path) {
    let renamed =
        "CASE WHEN CAST(substr(item_id, 2) AS INT) % 2 = 0 THEN concat('n', substr(item_id, 2)) ELSE item_id END";
    for day in std::fs::read_dir(lake.join("events")).unwrap() {
        let day = day.unwrap();
        if day.file_name().to_string_lossy().as_ref() >= &*format!("dt={TRAINED_ON}") {
            for file in std::fs::read_dir(day.path()).unwrap() {
                let new = format!("SELECT * EXCLUDE (item_id), {renamed} AS item_id FROM rows");
                lakes::rewrite(&file.unwrap().path(), &new);
            }
        }
    }
    let both = format!(
        "SELECT * FROM rows UNION ALL SELECT {renamed} AS item_id, * EXCLUDE (item_id) FROM rows \
         WHERE CAST(substr(item_id, 2) AS INT) % 2 = 0"
    );
    lakes::rewrite(&lake.join("items/part-00000.parquet"), &both);
}

/// Recall at five of the items that users interacted with in the week after the night and had not bought before.
struct Recall {
    met: f64,
    ours: f64,
    popular: f64,
    /// Share of new items among the first five recommendations.
    new_share: f64,
}

/// Trains a model, runs a night that recommends all items, and measures the recall of the items whose ids match `which`.
fn recalls(lake: &str, output: &str, settings: &[&str], which: &[&str]) -> Vec<Recall> {
    let learn = ["train.epochs_max=5", "train.batch_rows=64", "train.as_of_dates=8", "model.width=32"];
    let set = |settings: &[&'static str]| settings.iter().flat_map(|set| ["--set", set]).collect::<Vec<&str>>();
    let settings: Vec<&str> = settings.iter().flat_map(|set| ["--set", set]).collect();
    let places = ["--lake", lake, "--output", output];
    done(&[&set(&learn)[..], &settings, &["train"], &places, &["--date", TRAINED_ON]].concat());
    let all = set(&["recommendation.top_k=100"]);
    done(&[&all[..], &settings, &["nightly"], &places, &["--date", NIGHT]].concat());
    let week = format!("ts >= TIMESTAMP '{NIGHT}' AND ts < TIMESTAMP '{NIGHT}' + INTERVAL '7 days'");
    // Popularity since the change, when old and new items were sold alike.
    let since = format!("ts < TIMESTAMP '{NIGHT}' AND ts >= TIMESTAMP '{TRAINED_ON}'");
    let of = |which: &&str| {
        let sql = format!(
            "WITH bought AS (SELECT DISTINCT user_id, item_id FROM events \
               WHERE event_type = 'purchase' AND ts < TIMESTAMP '{NIGHT}'), \
             visited AS (SELECT DISTINCT e.user_id, e.item_id FROM events e \
               LEFT ANTI JOIN bought b ON b.user_id = e.user_id AND b.item_id = e.item_id \
               WHERE e.item_id LIKE '{which}' AND {week}), \
             ours AS (SELECT user_id, item_id, row_number() OVER (PARTITION BY user_id ORDER BY rank) AS place, rank \
               FROM recommendation WHERE item_id LIKE '{which}'), \
             popular AS (SELECT item_id FROM events WHERE item_id LIKE '{which}' AND {since} \
               GROUP BY item_id ORDER BY count(*) DESC, item_id LIMIT 5) \
             SELECT count(*), count(*) FILTER (WHERE o.place <= 5), count(p.item_id), \
               (SELECT CAST(count(*) FILTER (WHERE rank <= 5 AND item_id LIKE 'n%') AS DOUBLE) \
                  / count(*) FILTER (WHERE rank <= 5) FROM ours) \
             FROM visited m JOIN (SELECT DISTINCT user_id FROM ours) k ON k.user_id = m.user_id \
             LEFT JOIN ours o ON o.user_id = m.user_id AND o.item_id = m.item_id \
             LEFT JOIN popular p ON p.item_id = m.item_id"
        );
        let asked =
            [&["sql", "--refresh"], &places[..], &["--date", "2026-04-20", "--format", "csv", "-c", &sql]].concat();
        let found = done(&asked);
        let numbers: Vec<f64> = found.lines().nth(1).unwrap().split(',').map(|cell| cell.parse().unwrap()).collect();
        let [met, ours, popular, new_share] = numbers[..] else { panic!("{found}") };
        Recall { met, ours: ours / met, popular: popular / met, new_share }
    };
    which.iter().map(of).collect()
}

/// Simulates the shop with new items; returns its lake.
fn renewed(folder: &Path) -> String {
    let lake = folder.join("lake").display().to_string();
    done(&["simulate", "--to", &lake, "--users", "1800", "--items", "48", "--days", "112", "--seed", "29"]);
    renew(Path::new(&lake));
    lake
}

/// Each model is tested with and without contents: items added after training (cold start) have only a category besides.
#[test]
fn contents_recommend_new_items_better_than_popularity() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let lake = renewed(folder.path());
    let [new, all] = &recalls(&lake, &path("out"), &[], &["n%", "%"])[..] else { panic!() };
    // In the same output, whose rollups are there; the next training becomes champion only where there is none.
    std::fs::remove_file(path("out/models/champion")).unwrap();
    let blind = &recalls(&lake, &path("out"), &["model.content_inputs=false"], &["n%"])[0];
    println!(
        "recall@5 among items added after training, {} pairs of user and item: ours {:.3}, without contents {:.3}, \
         popularity {:.3}; among all items: ours {:.3}, popularity {:.3}; {:.3} of the first five are new",
        new.met, new.ours, blind.ours, new.popular, all.ours, all.popular, all.new_share
    );
    assert!(new.met > 300.0 && new.met == blind.met && new.ours > new.popular * 1.05, "{} {}", new.ours, new.popular);
    assert!(new.ours > blind.ours * 1.05, "{} {}", new.ours, blind.ours);
    assert!((0.2..0.8).contains(&all.new_share), "neither kind crowds the other out: {}", all.new_share);
}

/// New items have titles alone. The random encoders of tests/fixtures separate titles too poorly for this test.
#[test]
#[ignore = "needs the weights of all-MiniLM-L6-v2: run lab/check_minilm.sh"]
fn the_real_minilm_recommends_new_items_by_their_titles() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let lake = renewed(folder.path());
    let encoder = concat!("model.text_encoder=", env!("CARGO_MANIFEST_DIR"), "/.minilm");
    let [titles, blind] = [("titles", encoder), ("blind", "model.text_encoder=")]
        .map(|(out, encoder)| recalls(&lake, &path(out), &["model.content_inputs=false", encoder], &["n%"]).remove(0));
    println!(
        "recall@5 among items added after training, {} pairs of user and item: by titles {:.3}, without {:.3}, popularity {:.3}",
        titles.met, titles.ours, blind.ours, titles.popular
    );
    assert!(titles.met > 300.0 && titles.met == blind.met && titles.ours > titles.popular * 1.05, "{}", titles.ours);
    assert!(titles.ours > blind.ours * 1.05, "{} {}", titles.ours, blind.ours);
}
