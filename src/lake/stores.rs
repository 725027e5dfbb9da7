//! Opens a location (`s3://`, `file://`, `memory://`, a plain path) as an object store and a path within it.
//!
//! Everything that reads or writes goes through a [`Location`], so that nights on S3, on local files and in memory differ in
//! one setting.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    Attribute, Attributes, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    aws::AmazonS3Builder, local::LocalFileSystem, memory::InMemory, path::Path,
};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use url::Url;

use super::profile::ProfileCredentials;
use crate::config::S3Config;
use crate::failure::{Failure, Result};

/// A folder of an object store. `store` is rooted at the bucket (or `/`); `prefix` is the folder within it.
#[derive(Clone, Debug)]
pub struct Location {
    pub store: Arc<dyn ObjectStore>,
    pub prefix: Path,
    /// The folder's full URL, with a slash at its end: what DataFusion and delta-rs want.
    pub url: Url,
}

impl Location {
    /// Opens `uri`. Nothing is read or created yet.
    pub fn open(uri: &str, s3: &S3Config) -> Result<Self> {
        let url = to_url(uri)?;
        let store: Arc<dyn ObjectStore> = match url.scheme() {
            "file" => Arc::new(LocalFileSystem::new()),
            "memory" => memory_store(url.host_str().unwrap_or_default()),
            "s3" | "s3a" => Arc::new(open_s3(&url, s3)?),
            other => {
                return Err(Failure::usage(format!("{uri}: expected s3://, file:// or a plain path, got {other}://")));
            }
        };
        let prefix = Path::from_url_path(url.path()).map_err(|e| Failure::usage(format!("{uri}: {e}")))?;
        Ok(Self { store, prefix, url })
    }

    /// A folder below this one; `folder` uses `/` and may hold `=`.
    pub fn folder(&self, folder: &str) -> Self {
        let prefix = folder.split('/').filter(|p| !p.is_empty()).fold(self.prefix.clone(), |p, part| p.join(part));
        let mut url = self.url.clone();
        url.set_path(&format!("{}{}/", self.url.path(), folder.trim_matches('/')));
        Self { store: Arc::clone(&self.store), prefix, url }
    }

    /// The path of one object below this folder.
    pub(crate) fn path(&self, name: &str) -> Path {
        name.split('/').filter(|p| !p.is_empty()).fold(self.prefix.clone(), |p, part| p.join(part))
    }

    /// The path of an object that others named. Keeps its characters, where [`Self::path`] encodes those that a store may not
    /// accept. None for a name that cannot be an object, such as a step upwards.
    pub(crate) fn path_as_is(&self, name: &str) -> Option<Path> {
        let below: Vec<&str> = name.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        Path::parse(format!("{}/{}", self.prefix, below.join("/"))).ok()
    }

    /// Returns the name that messages show: the URL, or the plain path of a local file.
    pub(crate) fn display(&self, path: &Path) -> String {
        match self.url.scheme() {
            "file" => format!("/{path}"),
            _ => self.full_url(path),
        }
    }

    /// Returns the name that messages show for this folder, with a slash at its end.
    pub(crate) fn display_folder(&self) -> String {
        format!("{}/", self.display(&self.prefix).trim_end_matches('/'))
    }

    /// The full URL of an object in this store.
    pub(crate) fn full_url(&self, path: &Path) -> String {
        let mut url = self.url.clone();
        url.set_path(&format!("/{path}"));
        url.to_string()
    }

    /// Returns scheme and authority, the key by which DataFusion finds the store.
    pub fn store_url(&self) -> Result<Url> {
        let text = match self.url.host_str() {
            Some(host) => format!("{}://{host}", self.url.scheme()),
            None => format!("{}:///", self.url.scheme()),
        };
        Url::parse(&text).map_err(Failure::bug)
    }

    /// Lists every object below this folder, in path order; an absent folder is empty.
    pub async fn list(&self) -> Result<Vec<ObjectMeta>> {
        let mut found: Vec<ObjectMeta> = match self.store.list(Some(&self.prefix)).try_collect().await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            Err(e) => return Err(Failure::from(e).at(self.url.as_str())),
        };
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// Lists every object below this folder, grouped by the folder directly below this one.
    pub(crate) async fn list_by_folder(&self) -> Result<BTreeMap<String, Vec<ObjectMeta>>> {
        let mut folders: BTreeMap<String, Vec<ObjectMeta>> = BTreeMap::new();
        for object in self.list().await? {
            let folder = object.location.prefix_match(&self.prefix).into_iter().flatten().next();
            let folder = folder.map(|part| part.as_ref().to_string());
            folders.entry(folder.unwrap_or_default()).or_default().push(object);
        }
        Ok(folders)
    }

    /// Returns whether there is no object below this folder.
    pub(crate) async fn is_empty(&self) -> Result<bool> {
        match self.store.list(Some(&self.prefix)).next().await {
            None | Some(Err(object_store::Error::NotFound { .. })) => Ok(true),
            Some(Ok(_)) => Ok(false),
            Some(Err(e)) => Err(Failure::from(e).at(self.url.as_str())),
        }
    }

    /// Lists the names of folders and the objects directly below this folder.
    pub(crate) async fn children(&self) -> Result<(Vec<String>, Vec<ObjectMeta>)> {
        let listed = match self.store.list_with_delimiter(Some(&self.prefix)).await {
            Ok(listed) => listed,
            Err(object_store::Error::NotFound { .. }) => return Ok((Vec::new(), Vec::new())),
            Err(e) => return Err(Failure::from(e).at(self.url.as_str())),
        };
        let mut folders: Vec<String> =
            listed.common_prefixes.iter().filter_map(|p| p.filename().map(String::from)).collect();
        folders.sort();
        Ok((folders, listed.objects))
    }

    pub async fn read(&self, name: &str) -> Result<Bytes> {
        let path = self.path(name);
        let got = self.store.get(&path).await.map_err(|e| Failure::from(e).at(self.display(&path)))?;
        got.bytes().await.map_err(|e| Failure::from(e).at(self.display(&path)))
    }

    /// Reads an object; `None` if there is no such object.
    pub(crate) async fn read_if_there(&self, name: &str) -> Result<Option<Bytes>> {
        self.read_at(&self.path(name)).await
    }

    /// Reads the object at a path of this store; `None` if there is none.
    pub(crate) async fn read_at(&self, path: &Path) -> Result<Option<Bytes>> {
        match self.store.get(path).await {
            Ok(got) => Ok(Some(got.bytes().await?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(Failure::from(e).at(self.display(path))),
        }
    }

    /// Writes a whole object, replacing an existing one.
    pub async fn write(&self, name: &str, bytes: impl Into<PutPayload>) -> Result<()> {
        let path = self.path(name);
        self.store.put(&path, bytes.into()).await.map_err(|e| Failure::from(e).at(self.display(&path)))?;
        Ok(())
    }

    /// Writes a whole object that a browser may open, replacing an existing one. Local files have no content type.
    pub(crate) async fn write_as(
        &self,
        name: &str,
        bytes: impl Into<PutPayload>,
        content_type: &'static str,
    ) -> Result<()> {
        if self.url.scheme() == "file" {
            return self.write(name, bytes).await;
        }
        let path = self.path(name);
        let attributes = Attributes::from_iter([(Attribute::ContentType, content_type)]);
        let typed = PutOptions { attributes, ..Default::default() };
        self.store.put_opts(&path, bytes.into(), typed).await.map_err(|e| Failure::from(e).at(self.display(&path)))?;
        Ok(())
    }

    /// Writes a whole object if there is none yet; `false` if another writer was first.
    pub async fn create(&self, name: &str, bytes: impl Into<PutPayload>) -> Result<bool> {
        let path = self.path(name);
        let only_new = PutOptions { mode: PutMode::Create, ..Default::default() };
        match self.store.put_opts(&path, bytes.into(), only_new).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => Ok(false),
            Err(e) => Err(Failure::from(e).at(self.display(&path))),
        }
    }

    /// Moves an object below this folder to the same name below another folder of this store.
    pub(crate) async fn move_file(&self, name: &str, to: &Self) -> Result<()> {
        let from = self.path(name);
        self.store.rename(&from, &to.path(name)).await.map_err(|e| Failure::from(e).at(self.display(&from)))
    }

    /// Deletes objects; an object that is gone already is not an error.
    pub async fn delete(&self, paths: Vec<Path>) -> Result<()> {
        let doomed = futures::stream::iter(paths.into_iter().map(Ok)).boxed();
        let mut results = self.store.delete_stream(doomed);
        while let Some(result) = results.next().await {
            match result {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

fn to_url(uri: &str) -> Result<Url> {
    if uri.is_empty() {
        return Err(
            Failure::usage("no location given").hint("pass --lake and --output, or set lake.uri and output.uri")
        );
    }
    let mut url = match uri.contains("://") {
        true => Url::parse(uri).map_err(|e| Failure::usage(format!("{uri}: {e}")))?,
        false => {
            let path = std::path::absolute(uri).map_err(|e| Failure::usage(format!("{uri}: {e}")))?;
            let url = Url::from_directory_path(&path);
            let url = url.map_err(|()| Failure::usage(format!("{uri}: not a usable path")))?;
            // The parser resolves `..`, as `cd` does.
            Url::parse(url.as_str()).map_err(|e| Failure::usage(format!("{uri}: {e}")))?
        }
    };
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    Ok(url)
}

/// Credentials that the configuration leaves empty come from the environment, a web identity, a profile of the usual files
/// or the instance's role.
fn open_s3(url: &Url, s3: &S3Config) -> Result<object_store::aws::AmazonS3> {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(url.host_str().unwrap_or_default());
    if !s3.endpoint.is_empty() {
        builder = builder.with_endpoint(&s3.endpoint).with_virtual_hosted_style_request(!s3.path_style);
    }
    if !s3.region.is_empty() {
        builder = builder.with_region(&s3.region);
    }
    if !s3.access_key_id.is_empty() {
        builder = builder.with_access_key_id(&s3.access_key_id).with_secret_access_key(&s3.secret_access_key);
    }
    if let Some(credentials) = ProfileCredentials::from_config(s3) {
        builder = builder.with_credentials(Arc::new(credentials));
    }
    if s3.allow_http {
        builder = builder.with_allow_http(true);
    }
    builder.build().map_err(|e| Failure::usage(format!("{url}: {e}")))
}

/// Returns the in-memory store of a name, one for the whole process (tests).
fn memory_store(name: &str) -> Arc<InMemory> {
    static STORES: LazyLock<Mutex<std::collections::HashMap<String, Arc<InMemory>>>> = LazyLock::new(Default::default);
    let mut stores = STORES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    Arc::clone(stores.entry(name.into()).or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn create_lets_one_of_many_win() {
        let folder = tempfile::tempdir().unwrap();
        for uri in ["memory://one-winner/x".to_string(), folder.path().display().to_string()] {
            let place = Location::open(&uri, &S3Config::default()).unwrap();
            let tries = (0..50).map(|i| {
                let place = place.clone();
                tokio::spawn(async move { place.create("lock/1", format!("owner {i}")).await.unwrap() })
            });
            let won = futures::future::join_all(tries).await.into_iter().filter(|r| *r.as_ref().unwrap()).count();
            assert_eq!(won, 1, "{uri}");
        }
    }

    #[tokio::test]
    async fn folders_nest_and_list_in_order() {
        let place = Location::open("memory://nest", &S3Config::default()).unwrap().folder("a/dt=2026-01-01");
        place.write("y", "2").await.unwrap();
        place.write("x", "1").await.unwrap();
        let names: Vec<_> = place.list().await.unwrap().iter().map(|m| m.location.to_string()).collect();
        assert_eq!(names, ["a/dt=2026-01-01/x", "a/dt=2026-01-01/y"]);
        assert_eq!(place.url.as_str(), "memory://nest/a/dt=2026-01-01/");
    }

    #[test]
    fn a_path_may_lead_upwards() {
        let at = |uri: &str| Location::open(uri, &S3Config::default()).unwrap();
        let here = std::env::current_dir().unwrap();
        let above = here.parent().unwrap().join("lake");
        assert_eq!(at("../lake").prefix, at(above.to_str().unwrap()).prefix);
        assert_eq!((at("/a/../b/./c/").prefix, at("/a/b/../../..").prefix), (at("/b/c").prefix, at("/").prefix));
    }

    #[test]
    fn an_unknown_scheme_is_a_usage_error() {
        assert_eq!(Location::open("ftp://x/y", &S3Config::default()).unwrap_err().kind.exit_code(), 2);
    }
}
