//! Numbers behind which there are few users are not published, and later nights still know them.

use crate::support::shop::{done, query, refused, shop};

const NIGHT: &str = "2026-02-20";
const NEXT: &str = "2026-02-21";

/// The shop has 300 users; an item is recommended to about a hundred.
const K_MIN: &str = "privacy.k_min=90";

#[test]
fn what_few_users_stand_for_is_not_published_and_not_forgotten() {
    let (_own, lake, output) = shop();
    let (_other, _, all) = shop();
    let nightly = ["nightly", "--lake", &lake, "--date", NIGHT, "--output"];
    done(&[&["--set", "privacy.k_min=1"][..], &nightly, &[&all]].concat());
    done(&[&["--set", K_MIN][..], &nightly, &[&output]].concat());
    let counts =
        "SELECT count(*) AS rows, count(intent_units) AS known FROM demand WHERE target_date < DATE '2026-02-27'";
    let known = |output: &str| -> Vec<u64> {
        query(output, counts).lines().nth(1).unwrap().split(',').map(|number| number.parse().unwrap()).collect()
    };
    let (before, after) = (known(&all), known(&output));
    assert!(before[0] == before[1] && after[0] == before[0] && after[1] < after[0], "{before:?} {after:?}");
    assert!(after[1] > 0, "the others are published: {after:?}");
    // Everything else is as it is without: the night's own steps read all numbers.
    for sql in [
        "SELECT item_id, target_date, mean, q05, q50, q95, category, model_mean FROM demand ORDER BY item_id, target_date",
        "SELECT level, category, target_date, mean, model_mean, intent_weight FROM demand_total ORDER BY 1, 2, 3",
        "SELECT item_id, order_quantity, reason FROM replenishment ORDER BY item_id",
    ] {
        assert_eq!(query(&output, sql), query(&all, sql), "{sql}");
    }
    let sums = "SELECT count(*) > 7, max(abs(t.intent_units - s.units)) < 0.000000001 FROM demand_total AS t JOIN \
                (SELECT coalesce(category, '') AS category, target_date, sum(intent_units) AS units FROM demand GROUP BY 1, 2) AS s \
                ON s.category = t.category AND s.target_date = t.target_date WHERE t.level = 'category' AND s.units IS NOT NULL";
    assert_eq!(query(&output, sums).lines().nth(1), Some("true,true"), "sums are over what is published");
    let left =
        "SELECT item_id, target_date, round(intent_units, 6) FROM demand WHERE intent_units IS NOT NULL ORDER BY 1, 2";
    let all_rows = query(&all, left);
    for line in query(&output, left).lines() {
        assert!(all_rows.contains(line), "{line}");
    }
    // No other file than those that readers see has them either.
    let files = "SELECT count(*) FROM demand_history";
    assert_eq!(query(&output, files), query(&all, files));
    let folder = format!("{output}/tables/demand/run_date={NIGHT}");
    let per_folder = |folder: &str| std::fs::read_dir(folder).unwrap().count();
    assert!(per_folder(&folder) <= per_folder(&format!("{all}/tables/demand/run_date={NIGHT}")), "none is left over");

    // A night that stops before it has left them out leaves no file of it among the published ones.
    let mut stopped = vec!["--set", K_MIN, "--set", "checks.change_share_max=0"];
    stopped.extend(["nightly", "--lake", &lake, "--date", NEXT, "--output", &output]);
    refused(&stopped, 4);
    for (table, has_files) in [("intent", true), ("demand", false), ("demand_total", false)] {
        let folder = format!("{output}/tables/{table}/run_date={NEXT}");
        let files = std::fs::read_dir(folder).map_or(0, |files| files.count());
        assert_eq!(files > 0, has_files, "{table}: {files} files");
    }

    // The next night reads all of them, also after an erasure published the night again.
    let earlier = |output: &str| {
        let sql = "SELECT count(intent_units), round(sum(intent_units), 6) FROM earlier_demand";
        done(&["sql", "--lake", &lake, "--output", output, "--date", NEXT, "--format", "csv", "-c", sql])
    };
    assert_eq!(earlier(&output), earlier(&all));
    let user = query(&output, "SELECT min(user_id) FROM intent").lines().nth(1).unwrap().to_string();
    done(&["erase", "--lake", &lake, "--output", &output, "--user", &user]);
    done(&["--set", "gc.orphan_age_hours=0", "gc", "--output", &output]);
    assert_eq!(earlier(&output), earlier(&all));

    // Segments: none of fewer users than either setting.
    let segments = query(&output, "SELECT count(*) FROM segment WHERE users < 90");
    assert_eq!(segments, "count(*)\n0\n");
}
