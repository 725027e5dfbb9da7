//! Turns LightGBM's description of its trees (JSON) into perfect trees.

use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::model::trees::{DEPTH, Ensemble, NODES, PLACES, PerfectTree};

/// A split of null against the rest has the threshold infinity, which the description prints as a number of this size.
const INFINITE: f64 = 1e300;

/// Reads the trees of a description. Refuses what a perfect tree cannot hold: categorical splits and deeper trees.
pub(super) fn ensemble(description: &[u8]) -> Result<Ensemble> {
    let model: Value = serde_json::from_slice(description).map_err(|e| unreadable(&e.to_string()))?;
    let trees = model["tree_info"].as_array().ok_or_else(|| unreadable("tree_info is missing"))?;
    let perfect = |tree: &Value| {
        let mut perfect = PerfectTree {
            feature: [0; NODES],
            threshold: [f32::INFINITY; NODES],
            null_left: [true; NODES],
            value: [0.0; PLACES],
            cover: [0.0; PLACES],
        };
        fill(&tree["tree_structure"], 0, 0, &mut perfect)?;
        Ok(perfect)
    };
    Ok(Ensemble::new(trees.iter().map(perfect).collect::<Result<_>>()?))
}

fn unreadable(reason: &str) -> Failure {
    Failure::bug(format!("LightGBM's description of its trees: {reason}"))
}

fn number(node: &Value, key: &str) -> Result<f64> {
    node[key].as_f64().ok_or_else(|| unreadable(&format!("expected a number {key}, got {}", node[key])))
}

/// Copies a node or leaf and what is below it to `place` of the perfect tree, whose root has depth 0.
fn fill(node: &Value, place: usize, depth: usize, tree: &mut PerfectTree) -> Result<()> {
    let is_leaf = node.get("leaf_value").is_some();
    let (value, count) = if is_leaf { ("leaf_value", "leaf_count") } else { ("internal_value", "internal_count") };
    tree.value[place] = number(node, value)?;
    // A tree of one leaf does not say how many rows it has.
    tree.cover[place] = node[count].as_f64().unwrap_or_default() as f32;
    if depth == DEPTH {
        return if is_leaf { Ok(()) } else { Err(unreadable(&format!("a tree is deeper than {DEPTH}"))) };
    }
    let [left, right] = if is_leaf { [node, node] } else { [&node["left_child"], &node["right_child"]] };
    if !is_leaf {
        if node["decision_type"] != "<=" {
            return Err(unreadable(&format!("expected splits by <=, got {}", node["decision_type"])));
        }
        let threshold = number(node, "threshold")?;
        tree.feature[place] = u16::try_from(number(node, "split_feature")? as u64)
            .map_err(|_| unreadable("a feature's number is above 65535"))?;
        tree.threshold[place] = rounded_down(threshold);
        // A column without nulls in training reads null as 0, whatever `default_left` says.
        tree.null_left[place] = match node["missing_type"].as_str() {
            Some("NaN") => node["default_left"] == true,
            _ => 0.0 <= threshold,
        };
    }
    fill(left, 2 * place + 1, depth + 1, tree)?;
    fill(right, 2 * place + 2, depth + 1, tree)
}

/// The largest f32 that is not above a threshold: `x <= threshold` then decides alike for every f32 `x`.
fn rounded_down(threshold: f64) -> f32 {
    if threshold >= INFINITE {
        return f32::INFINITY;
    }
    let nearest = threshold as f32;
    if f64::from(nearest) > threshold { nearest.next_down() } else { nearest }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn tree(structure: Value) -> Result<PerfectTree> {
        let description = json!({ "tree_info": [{ "tree_structure": structure }] });
        ensemble(description.to_string().as_bytes()).map(|all| all.trees()[0].clone())
    }

    #[test]
    fn thresholds_are_rounded_down_and_infinity_is_read_back() {
        assert_eq!(rounded_down(0.1f32.into()), 0.1);
        let between = f64::from(0.1f32) - 1e-12;
        assert_eq!(rounded_down(between), 0.1f32.next_down());
        assert_eq!(rounded_down(1.7e308), f32::INFINITY);
        assert_eq!(rounded_down(-1e300), f32::NEG_INFINITY, "no finite number is as small");
    }

    #[test]
    fn a_short_path_is_filled_with_its_leaf() {
        let split = json!({
            "split_feature": 3, "threshold": 1.5, "decision_type": "<=", "default_left": false, "missing_type": "None",
            "internal_value": 0.5, "internal_count": 10,
            "left_child": { "leaf_value": -1.0, "leaf_count": 4 }, "right_child": { "leaf_value": 2.0, "leaf_count": 6 }
        });
        let tree = tree(split).unwrap();
        assert_eq!((tree.feature[0], tree.threshold[0], tree.null_left[0]), (3, 1.5, true), "null counts as 0");
        let half = (PLACES - NODES) / 2;
        assert!(tree.value[NODES..NODES + half].iter().all(|&value| value == -1.0));
        assert!(tree.value[NODES + half..].iter().all(|&value| value == 2.0));
        assert_eq!((tree.cover[0], tree.cover[1], tree.cover[PLACES - 1]), (10.0, 4.0, 6.0));
    }

    #[test]
    fn categorical_splits_and_deep_trees_are_refused() {
        let leaf = json!({ "leaf_value": 1.0, "leaf_count": 1 });
        let split = |kind: &str, below: Value| {
            json!({
                "split_feature": 0, "threshold": 0.0, "decision_type": kind, "default_left": true, "missing_type": "NaN",
                "internal_value": 0.0, "internal_count": 2, "left_child": below, "right_child": leaf
            })
        };
        assert!(tree(split("==", leaf.clone())).unwrap_err().message.contains("expected splits by <="));
        let deep = (0..DEPTH + 1).fold(leaf.clone(), |below, _| split("<=", below));
        assert!(tree(deep).unwrap_err().message.contains("deeper than 6"));
    }
}
