//! The items that can be recommended. Training writes the items that it knows into the bundle. A session that scores has its
//! own, which include items added since; a night writes them below `state/catalogue/`, and its plans carry their hash.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::prelude::SessionContext;

use crate::failure::{Failure, Result};
use crate::ids::ContentHash;
use crate::lake::stores::Location;
use crate::model::bundle::IndexedItem;

/// The view that lists them: sql/features/recommendable_items.sql.
pub(crate) const VIEW: &str = "recommendable_items";

/// The session's items, in id order.
pub(crate) async fn session_items(ctx: &SessionContext) -> Result<Vec<IndexedItem>> {
    let sql =
        format!("SELECT item_id, category, text_key, image_key, video_key, met_per_day FROM {VIEW} ORDER BY item_id");
    let mut items = Vec::new();
    for batch in ctx.sql(&sql).await?.collect().await? {
        let ids = cast(batch.column(0), &DataType::Utf8)?;
        let ids = ids.as_string::<i32>();
        let categories = cast(batch.column(1), &DataType::Utf8)?;
        let categories = categories.as_string::<i32>();
        let keys = [2, 3, 4].map(|column| batch.column(column).as_primitive::<Int64Type>());
        let rates = cast(batch.column(5), &DataType::Float64)?;
        let rates = rates.as_primitive::<Float64Type>();
        for row in (0..batch.num_rows()).filter(|&row| ids.is_valid(row)) {
            let contents = keys.map(|column| column.is_valid(row).then(|| column.value(row)));
            let category = categories.is_valid(row).then(|| categories.value(row).to_string());
            let interactions_per_day = if rates.is_valid(row) { rates.value(row) } else { 0.0 };
            items.push(IndexedItem { item_id: ids.value(row).into(), category, contents, interactions_per_day });
        }
    }
    Ok(items)
}

/// Hash that plans carry instead of the items.
pub(crate) fn hash(items: &[IndexedItem]) -> Result<String> {
    Ok(hash_bytes(&to_json(items)?))
}

/// Writes items for the processes that run a plan with their hash, which is returned.
pub(crate) async fn save(output: &Location, items: &[IndexedItem]) -> Result<String> {
    let bytes = to_json(items)?;
    let hash = hash_bytes(&bytes);
    let place = folder(output);
    if place.read_if_there(&file(&hash)).await?.is_none_or(|there| there != bytes) {
        place.write(&file(&hash), bytes).await?;
    }
    Ok(hash)
}

/// Reports whether the items of a hash have been saved.
pub(crate) async fn exists(output: &Location, hash: &str) -> Result<bool> {
    Ok(folder(output).read_if_there(&file(hash)).await?.is_some())
}

/// Reads the items of a hash.
pub(crate) async fn load(output: &Location, hash: &str) -> Result<Vec<IndexedItem>> {
    let (place, file) = (folder(output), file(hash));
    let damaged = |why: String| {
        Failure::input(format!("{}: {why}", place.display(&place.path(&file))))
            .hint("an older session planned this query: run it again")
    };
    let bytes = place.read_if_there(&file).await?.ok_or_else(|| damaged("not found".into()))?;
    serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))
}

/// The folder of saved items.
pub(crate) fn folder(output: &Location) -> Location {
    output.folder("state/catalogue")
}

fn file(hash: &str) -> String {
    format!("{hash}.json")
}

fn to_json(items: &[IndexedItem]) -> Result<Vec<u8>> {
    serde_json::to_vec(items).map_err(Failure::bug)
}

fn hash_bytes(bytes: &[u8]) -> String {
    ContentHash::from_bytes(bytes).short()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;

    #[tokio::test]
    async fn items_are_saved_once_and_a_damaged_file_is_rewritten() {
        let output = Location::open("memory://catalogue", &S3Config::default()).unwrap();
        let sql = "CREATE VIEW recommendable_items AS SELECT * FROM (VALUES ('b', 'mugs', 3, CAST(NULL AS BIGINT), 7, 2.5), \
                   ('a', NULL, NULL, 5, NULL, NULL)) AS t(item_id, category, text_key, image_key, video_key, met_per_day)";
        let ctx = SessionContext::new();
        ctx.sql(sql).await.unwrap();
        let items = session_items(&ctx).await.unwrap();
        let a = IndexedItem {
            item_id: "a".into(),
            category: None,
            contents: [None, Some(5), None],
            interactions_per_day: 0.0,
        };
        assert_eq!(items[0], a);
        assert_eq!((items.len(), items[1].contents, items[1].interactions_per_day), (2, [Some(3), None, Some(7)], 2.5));
        let saved = save(&output, &items).await.unwrap();
        assert_eq!(saved, hash(&items).unwrap());
        assert!(exists(&output, &saved).await.unwrap() && !exists(&output, "none").await.unwrap());
        assert_eq!(save(&output, &items).await.unwrap(), saved);
        assert_ne!(save(&output, &items[..1]).await.unwrap(), saved);
        assert_eq!(load(&output, &saved).await.unwrap(), items);
        folder(&output).write(&file(&saved), "[{").await.unwrap();
        assert!(load(&output, &saved).await.unwrap_err().message.contains(&saved));
        assert_eq!(save(&output, &items).await.unwrap(), saved);
        assert_eq!(load(&output, &saved).await.unwrap(), items);
        assert!(load(&output, "none").await.unwrap_err().message.contains("not found"));
    }
}
