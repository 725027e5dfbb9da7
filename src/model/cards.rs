//! Models of tables, texts and images, which `train --task` makes and nights do not use. Each kind has a card of its own;
//! writing, reading, listing and refusing them works the same way for all kinds. `table`, `text` and `vision` declare the cards
//! and supply the weights.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tch::{Device, Tensor, nn};

use super::registry::Registry;
use super::weights;
use crate::failure::{Failure, FailureKind, Result};
use crate::ids::ContentHash;

/// A JSON file that describes the model in a folder `models/KIND-DATE-HASH/`: everything but its weights.
pub(crate) trait Card: Serialize + DeserializeOwned {
    /// The kind's name in `train --task`.
    const KIND: &'static str;
    /// The file's name in the folder.
    const FILE: &'static str;
    /// The format version that is written and read.
    const FORMAT: u32;

    fn version(&self) -> &str;

    fn trained_at(&self) -> &str;

    fn weights_hash(&self) -> &str;

    /// Sets the fields that are known only when the model is written.
    fn seal(&mut self, version: String, weights_hash: String);
}

impl Registry {
    /// Writes a model's files, by their names below its folder, and returns the sealed card. The card is written last, so that
    /// a version with a card is complete. Such a model never becomes champion.
    pub(crate) async fn write_files<C: Card>(&self, mut card: C, mut files: Vec<(String, Bytes)>) -> Result<C> {
        files.sort();
        let hash = hash(&files);
        let day: String = card.trained_at().chars().filter(char::is_ascii_digit).take(8).collect();
        let version = format!("{}-{day}-{}", C::KIND, &hash[..8]);
        let folder = self.0.folder(&version);
        card.seal(version, hash[..16].to_string());
        for (name, bytes) in files {
            folder.write(&name, bytes).await?;
        }
        folder.write(C::FILE, serde_json::to_vec_pretty(&card).map_err(Failure::bug)?).await?;
        Ok(card)
    }

    /// Returns the card of a version of the kind `C`.
    pub(crate) async fn card_of<C: Card>(&self, version: &str) -> Result<C> {
        let kind = C::KIND;
        let folder = self.0.folder(version);
        let hint = format!("`intentcast models` lists the versions; `intentcast train --task {kind}` makes one");
        if version.is_empty() {
            return Err(Failure::usage(format!("expected the version of a {kind} model, got nothing")).hint(hint));
        }
        let Some(bytes) = folder.read_if_there(C::FILE).await? else {
            return Err(Failure::model(format!("{}: no such {kind} model", folder.url)).hint(hint));
        };
        let refuse = |text: String| damaged(Failure::model(format!("models/{version}/{}: {text}", C::FILE)));
        let card: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| refuse(e.to_string()))?;
        match card.get("format").and_then(serde_json::Value::as_u64) {
            Some(format) if format > u64::from(C::FORMAT) => {
                Err(refuse(format!("expected format {}, got {format}, which a newer intentcast wrote", C::FORMAT))
                    .hint("upgrade intentcast here, or name another version"))
            }
            Some(format) if format != u64::from(C::FORMAT) => {
                Err(refuse(format!("expected format {}, got {format}", C::FORMAT)))
            }
            _ => serde_json::from_value(card).map_err(|e| refuse(e.to_string())),
        }
    }

    /// Returns the readable cards of a kind, oldest first; logs the unreadable ones.
    pub(crate) async fn cards_of<C: Card>(&self) -> Result<Vec<C>> {
        let mut cards = Vec::<C>::new();
        let prefix = format!("{}-", C::KIND);
        for version in self.0.children().await?.0.iter().filter(|version| version.starts_with(&prefix)) {
            match self.card_of(version).await {
                Ok(card) => cards.push(card),
                Err(failure) => tracing::warn!("{}", failure.message),
            }
        }
        cards.sort_by(|a, b| a.trained_at().cmp(b.trained_at()));
        Ok(cards)
    }
}

/// Returns the hash of the names and bytes of sorted files.
fn hash(files: &[(String, Bytes)]) -> String {
    hash_of(files.iter().flat_map(|(name, bytes)| [Bytes::from(name.clone()), bytes.clone()]))
}

/// Returns the hash of parts, each preceded by its length, so that different lists of parts give different hashes.
pub(crate) fn hash_of(parts: impl Iterator<Item = Bytes>) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(&part);
    }
    ContentHash::from_hasher(&hasher).full()
}

/// Refuses files that changed since they were written; `weights_hash` is the card's.
pub(crate) fn check_files(url: &str, mut files: Vec<(String, Bytes)>, weights_hash: &str) -> Result<()> {
    files.sort();
    match hash(&files)[..16] == *weights_hash {
        true => Ok(()),
        false => Err(damaged(Failure::model(format!("{url}: checksum mismatch: files changed since training")))),
    }
}

/// Returns the trained weights of a part as the bytes of a safetensors file; refuses numbers that are not finite. `section`
/// holds the settings that the hint names.
pub(crate) fn bytes_of(section: &str, named: &[(String, Tensor)]) -> Result<Bytes> {
    for (name, tensor) in named {
        if !weights::all_finite(tensor)? {
            return Err(Failure::model(format!("weights of {name} are not finite after training"))
                .hint(format!("lower {section}.learning_rate and {section}.head_learning_rate")));
        }
    }
    Ok(weights::tensors_to_bytes(named)?.into())
}

/// Builds a part of a network and loads its weights from the bytes of the file `path`. Returns the part and the frozen store of
/// its weights.
pub(crate) fn read_part<T>(
    bytes: &[u8],
    path: String,
    device: Device,
    build: impl FnOnce(&nn::Path<'_>) -> Result<T>,
) -> Result<(T, nn::VarStore)> {
    let mut store = nn::VarStore::new(device);
    let part = build(&store.root())?;
    weights::from_bytes(&mut [&mut store], bytes).map_err(|f| damaged(f.at(path)))?;
    store.freeze();
    Ok((part, store))
}

/// Turns a failure to read a model's files into a failure of the model.
pub(crate) fn damaged(failure: Failure) -> Failure {
    Failure { kind: FailureKind::Model, ..failure }.hint("train again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use crate::lake::stores::Location;
    use crate::model::table::bundle::TableCard;
    use crate::model::text::bundle::TextCard;
    use crate::model::vision::ImageModelCard;

    /// Asserts that a card of the next format is refused, although nothing else of it can be read.
    async fn assert_newer_is_refused<C: Card>() {
        let kind = C::KIND;
        let newer = C::FORMAT + 1;
        let models = Location::open(&format!("memory://newer-{kind}/models"), &S3Config::default()).unwrap();
        let card = serde_json::to_vec(&serde_json::json!({ "format": newer })).unwrap();
        models.folder("v").write(C::FILE, card).await.unwrap();
        let Err(refused) = Registry(models).card_of::<C>("v").await else { panic!("{kind}: not refused") };
        let wanted = format!("models/v/{}: expected format {}, got {newer}", C::FILE, C::FORMAT);
        assert!(refused.kind == FailureKind::Model && refused.message.starts_with(&wanted), "{refused}");
        assert_eq!(refused.hint.as_deref(), Some("upgrade intentcast here, or name another version"));
    }

    #[tokio::test]
    async fn a_card_of_a_newer_format_is_refused_with_a_hint() {
        assert_newer_is_refused::<TableCard>().await;
        assert_newer_is_refused::<TextCard>().await;
        assert_newer_is_refused::<ImageModelCard>().await;
    }

    #[test]
    fn a_hash_depends_on_where_a_part_ends() {
        let hash = |parts: [&'static str; 2]| hash_of(parts.into_iter().map(Bytes::from));
        assert_ne!(hash(["ab", "c"]), hash(["a", "bc"]));
    }
}
