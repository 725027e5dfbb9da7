//! The items that can be recommended. Training writes those that it knew into the bundle; a session that scores has its own,
//! with whatever came since, kept below `state/catalogue/` by their hash, which its plans carry.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::prelude::SessionContext;

use crate::failure::{Failure, Result};
use crate::lake::stores::Location;
use crate::model::bundle::IndexedItem;

/// The view that says which: sql/features/recommendable_items.sql.
pub const VIEW: &str = "recommendable_items";

/// The session's items, in id order.
pub async fn of_session(ctx: &SessionContext) -> Result<Vec<IndexedItem>> {
    let sql =
        format!("SELECT item_id, category, text_key, image_key, video_key, met_per_day FROM {VIEW} ORDER BY item_id");
    let mut items = Vec::new();
    for batch in ctx.sql(&sql).await?.collect().await? {
        let (ids, categories) = (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(1), &DataType::Utf8)?);
        let (ids, categories) = (ids.as_string::<i32>(), categories.as_string::<i32>());
        let keys = [2, 3, 4].map(|column| batch.column(column).as_primitive::<Int64Type>());
        let met = cast(batch.column(5), &DataType::Float64)?;
        let met = met.as_primitive::<Float64Type>();
        for row in (0..batch.num_rows()).filter(|&row| ids.is_valid(row)) {
            let contents = keys.map(|of| of.is_valid(row).then(|| of.value(row)));
            let category = categories.is_valid(row).then(|| categories.value(row).to_string());
            let met_per_day = if met.is_valid(row) { met.value(row) } else { 0.0 };
            items.push(IndexedItem {
                item_id: ids.value(row).into(),
                category,
                contents,
                interactions_per_day: met_per_day,
            });
        }
    }
    Ok(items)
}

/// Keeps items for whoever runs a plan that names their hash, which is returned.
pub async fn keep(output: &Location, items: &[IndexedItem]) -> Result<String> {
    let bytes = serde_json::to_vec(items).map_err(Failure::bug)?;
    let hash = blake3::hash(&bytes).to_hex()[..16].to_string();
    let place = folder(output);
    if place.read_if_there(&file(&hash)).await?.is_none_or(|there| there != bytes) {
        place.write(&file(&hash), bytes).await?;
    }
    Ok(hash)
}

/// The items that were kept by a hash.
pub async fn read(output: &Location, hash: &str) -> Result<Vec<IndexedItem>> {
    let (place, file) = (folder(output), file(hash));
    let damaged = |why: String| {
        Failure::input(format!("{}: {why}", place.display(&place.path(&file))))
            .hint("the plan that names it was made by an older session: run the query again")
    };
    let bytes = place.read_if_there(&file).await?.ok_or_else(|| damaged("not found".into()))?;
    serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))
}

/// Where catalogues lie.
pub fn folder(output: &Location) -> Location {
    output.folder("state/catalogue")
}

fn file(hash: &str) -> String {
    format!("{hash}.json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;

    #[tokio::test]
    async fn items_are_kept_once_by_their_hash_and_half_a_file_is_made_good() {
        let output = Location::open("memory://catalogue", &S3Config::default()).unwrap();
        let sql = "CREATE VIEW recommendable_items AS SELECT * FROM (VALUES ('b', 'mugs', 3, CAST(NULL AS BIGINT), 7, 2.5), \
                   ('a', NULL, NULL, 5, NULL, NULL)) AS t(item_id, category, text_key, image_key, video_key, met_per_day)";
        let ctx = SessionContext::new();
        ctx.sql(sql).await.unwrap();
        let items = of_session(&ctx).await.unwrap();
        let a = IndexedItem {
            item_id: "a".into(),
            category: None,
            contents: [None, Some(5), None],
            interactions_per_day: 0.0,
        };
        assert_eq!(items[0], a);
        assert_eq!((items.len(), items[1].contents, items[1].interactions_per_day), (2, [Some(3), None, Some(7)], 2.5));
        let hash = keep(&output, &items).await.unwrap();
        assert_eq!(keep(&output, &items).await.unwrap(), hash);
        assert_ne!(keep(&output, &items[..1]).await.unwrap(), hash);
        assert_eq!(read(&output, &hash).await.unwrap(), items);
        folder(&output).write(&file(&hash), "[{").await.unwrap();
        assert!(read(&output, &hash).await.unwrap_err().message.contains(&hash));
        assert_eq!(keep(&output, &items).await.unwrap(), hash);
        assert_eq!(read(&output, &hash).await.unwrap(), items);
        assert!(read(&output, "none").await.unwrap_err().message.contains("not found"));
    }
}
