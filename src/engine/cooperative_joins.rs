//! Lets a query that multiplies rows be cancelled.
//!
//! DataFusion counts the batches that leaves and exchanges hand out, and yields to the runtime after some. A join that makes thousands of
//! batches from one never comes to that point: cancelled, it would keep its thread busy to the end.

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, SortMergeJoinExec};
use datafusion::physical_plan::unnest::UnnestExec;
use std::sync::Arc;

/// Counts the batches of joins and of lists made rows, too.
#[derive(Debug)]
pub(crate) struct CooperativeJoins;

impl PhysicalOptimizerRule for CooperativeJoins {
    fn name(&self) -> &str {
        "CooperativeJoins"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let cooperative = plan.transform_up(|node| {
            Ok(match multiplies_rows(node.as_ref()) {
                true => Transformed::yes(Arc::new(CooperativeExec::new(node))),
                false => Transformed::no(node),
            })
        });
        Ok(cooperative?.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Takes away what [`CooperativeJoins`] added: each node more makes a serialized plan deeper, and its parser takes 100 levels.
pub(crate) fn without(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let bare = plan.transform_up(|node| {
        let child = node.downcast_ref::<CooperativeExec>().map(|added| Arc::clone(added.input()));
        Ok(match child.filter(|child| multiplies_rows(child.as_ref())) {
            Some(child) => Transformed::yes(child),
            None => Transformed::no(node),
        })
    });
    Ok(bare?.data)
}

fn multiplies_rows(node: &dyn ExecutionPlan) -> bool {
    node.is::<CrossJoinExec>()
        || node.is::<HashJoinExec>()
        || node.is::<NestedLoopJoinExec>()
        || node.is::<SortMergeJoinExec>()
        || node.is::<UnnestExec>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn plans_for_a_cluster_are_as_deep_as_before() {
        let ctx = crate::engine::session(&crate::config::Config::default()).unwrap();
        let sql = "SELECT a.value FROM range(1, 9) AS a JOIN range(1, 9) AS b ON a.value = b.value";
        let plan = ctx.sql(sql).await.unwrap().create_physical_plan().await.unwrap();
        let shown = |plan: &Arc<dyn ExecutionPlan>| {
            datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string()
        };
        let (before, after) = (shown(&plan), shown(&without(plan).unwrap()));
        let levels = |text: &str| text.matches("CooperativeExec").count();
        assert_eq!(levels(&before), levels(&after) + 1, "{before}{after}");
    }

    #[tokio::test]
    async fn a_dropped_query_leaves_its_thread() {
        let ctx = crate::engine::session(&crate::config::Config::default()).unwrap();
        for sql in [
            "SELECT sum(a.value % b.value) FROM range(1, 10000000) AS a, range(1, 10000000) AS b",
            "SELECT count(*) FROM range(1, 1000000) AS a JOIN range(1, 1000000) AS b ON a.value % 2 = b.value % 2",
            "SELECT sum(a.value) FROM range(1, 1000000) AS a JOIN range(1, 1000000) AS b ON a.value < b.value + 7",
            "SELECT sum(x) FROM (SELECT unnest(range(1, 1000)) AS x FROM range(1, 100000000))",
        ] {
            // This runtime has one thread, so that the time is seen only by a query that yields.
            let query = async { ctx.sql(sql).await.unwrap().collect().await };
            let ended = tokio::time::timeout(Duration::from_millis(200), query).await;
            assert!(ended.is_err(), "{sql}");
            let answer = ctx.sql("SELECT 42").await.unwrap().collect().await.unwrap();
            assert_eq!(answer[0].num_rows(), 1);
        }
    }
}
