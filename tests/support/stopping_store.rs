//! A store that blocks its user for ever right after the n-th write, as if the process were killed there; and a store whose
//! disk is full.
//!
//! A kill just before write n equals a kill just after write n - 1, so counting up covers every moment between writes.

use futures::stream::BoxStream;
use intentcast::lake::stores::Location;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug)]
pub struct StoppingStore {
    inner: Arc<dyn ObjectStore>,
    writes: AtomicU64,
    stops_after: u64,
    /// Writes to paths that contain this text fail for lack of space.
    full_at: Option<&'static str>,
    stopped: tokio::sync::Notify,
}

impl StoppingStore {
    /// Opens `place` through a store that stops after `stops_after` writes; heartbeats and clock probes do not count.
    pub fn over(place: &Location, stops_after: u64) -> (Location, Arc<Self>) {
        Self::new(place, stops_after, None)
    }

    /// Opens `place` on a disk that has no space left for paths that contain `full_at`.
    pub fn full(place: &Location, full_at: &'static str) -> (Location, Arc<Self>) {
        Self::new(place, u64::MAX, Some(full_at))
    }

    fn new(place: &Location, stops_after: u64, full_at: Option<&'static str>) -> (Location, Arc<Self>) {
        let store = Arc::new(Self {
            inner: Arc::clone(&place.store),
            writes: AtomicU64::new(0),
            stops_after,
            full_at,
            stopped: tokio::sync::Notify::new(),
        });
        (Location { store: Arc::clone(&store) as _, ..place.clone() }, store)
    }

    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::SeqCst)
    }

    /// Waits until the n-th write is done.
    pub async fn stopped(&self) {
        self.stopped.notified().await;
    }
}

impl fmt::Display for StoppingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoppingStore({})", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for StoppingStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if self.full_at.is_some_and(|part| location.as_ref().contains(part)) {
            self.writes.fetch_add(1, Ordering::SeqCst);
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull).into();
            return Err(object_store::Error::Generic { store: "full disk", source });
        }
        if location.extension() == Some("heartbeat") || location.as_ref().contains("/state/probe/") {
            return self.inner.put_opts(location, payload, opts).await;
        }
        let number = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        if number > self.stops_after {
            return std::future::pending().await;
        }
        let landed = self.inner.put_opts(location, payload, opts).await;
        if number == self.stops_after {
            self.stopped.notify_one();
            return std::future::pending().await;
        }
        landed
    }

    /// Refuses multipart uploads, which would not be counted; the small files of these tests are whole puts.
    async fn put_multipart_opts(&self, location: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        panic!("{location}: expected a whole put, got a multipart upload")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
