//! A small S3 server in the test process: s3s implements the protocol, a map under one mutex is the bucket.
//!
//! s3s-fs 0.11.1 does not fit: it ignores `If-None-Match` and the list delimiter, which commits depend on. One mutex makes a
//! conditional put atomic, as on S3. Signatures are checked. The server has a thread of its own, so it serves child processes
//! while a test blocks.

use bytes::{Bytes, BytesMut};
use futures::TryStreamExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use intentcast::config::S3Config;
use intentcast::lake::stores::Location;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3Request, S3Response, S3Result, s3_error};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

const KEY_ID: &str = "test-key";
const SECRET: &str = "test-secret";
/// Page size of listings, so small that a listing of a few files has several pages.
const PAGE_KEYS: usize = 50;

/// A running server. It ends with the process.
pub struct S3Server {
    pub endpoint: String,
    bucket: Arc<Bucket>,
}

#[derive(Default)]
struct Bucket {
    objects: Mutex<BTreeMap<String, Object>>,
    uploads: Mutex<BTreeMap<String, BTreeMap<i32, Bytes>>>,
    /// Objects that were replaced or deleted, by name and version.
    older: Mutex<BTreeMap<(String, String), Object>>,
    keeps_versions: AtomicBool,
    numbers: AtomicU64,
    bytes_read: AtomicU64,
    reads: AtomicU64,
    /// Actions that are answered with 403, each with the `bucket/key` prefix below which it is.
    denied: Mutex<Vec<(Action, String)>>,
}

/// An action that a bucket's policy can forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    List,
    Read,
    Write,
    Delete,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    written_at: SystemTime,
    e_tag: String,
    version: String,
}

impl S3Server {
    /// Listens on a free port of 127.0.0.1. Any bucket name but `nosuchbucket` works; each is a prefix of one
    /// key space.
    pub fn start() -> Self {
        let bucket = Arc::new(Bucket::default());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let mut service = S3ServiceBuilder::new(Shared(Arc::clone(&bucket)));
        service.set_auth(SimpleAuth::from_single(KEY_ID, SECRET));
        let service = service.build().into_shared();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                loop {
                    let Ok((socket, _)) = listener.accept().await else { continue };
                    let server = Builder::new(TokioExecutor::new());
                    let connection = server.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
                    tokio::spawn(async move { connection.await.ok() });
                }
            });
        });
        Self { endpoint, bucket }
    }

    pub fn config(&self) -> S3Config {
        S3Config {
            endpoint: self.endpoint.clone(),
            region: "us-east-1".into(),
            access_key_id: KEY_ID.into(),
            secret_access_key: SECRET.into(),
            profile: String::new(),
            path_style: true,
            allow_http: true,
        }
    }

    /// Returns the settings of [`Self::config`] as flags of the command line.
    pub fn flags(&self) -> Vec<String> {
        let settings = [
            ("endpoint", self.endpoint.as_str()),
            ("region", "us-east-1"),
            ("access_key_id", KEY_ID),
            ("secret_access_key", SECRET),
            ("path_style", "true"),
            ("allow_http", "true"),
        ];
        settings.iter().flat_map(|(key, value)| ["--set".to_string(), format!("s3.{key}={value}")]).collect()
    }

    pub fn location(&self, uri: &str) -> Location {
        Location::open(uri, &self.config()).unwrap()
    }

    /// Returns the bytes of all object reads so far.
    pub fn bytes_read(&self) -> u64 {
        self.bucket.bytes_read.load(Ordering::Relaxed)
    }

    /// Counts the object reads (whole, in part, or of metadata) so far.
    pub fn reads(&self) -> u64 {
        self.bucket.reads.load(Ordering::Relaxed)
    }

    /// Answers this action below `bucket/prefix` with 403 from now on, in place of what was denied before.
    pub fn deny(&self, action: Action, prefix: &str) {
        *self.bucket.denied.lock().unwrap() = vec![(action, prefix.into())];
    }

    /// Keeps what is replaced or deleted from now on.
    pub fn keep_versions(&self) {
        self.bucket.keeps_versions.store(true, Ordering::Relaxed);
    }

    /// Deletes everything that was replaced or deleted.
    pub fn drop_versions(&self) {
        self.bucket.older.lock().unwrap().clear();
    }

    /// Returns every key, as `bucket/key`.
    pub fn keys(&self) -> Vec<String> {
        self.bucket.objects().keys().cloned().collect()
    }
}

impl Bucket {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap()
    }

    fn allow(&self, action: Action, name: &str) -> S3Result<()> {
        if name.starts_with("nosuchbucket/") {
            return Err(s3_error!(NoSuchBucket, "The specified bucket does not exist"));
        }
        let denied = self.denied.lock().unwrap();
        match denied.iter().any(|(what, prefix)| *what == action && name.starts_with(prefix.as_str())) {
            true => Err(s3_error!(AccessDenied)),
            false => Ok(()),
        }
    }

    fn put(&self, name: String, bytes: Bytes, only_new: bool) -> S3Result<String> {
        self.allow(Action::Write, &name)?;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let e_tag = format!("\"{}-{number}\"", &blake3::hash(&bytes).to_hex()[..16]);
        let mut objects = self.objects();
        if only_new && objects.contains_key(&name) {
            return Err(s3_error!(PreconditionFailed));
        }
        let new = Object { bytes, written_at: SystemTime::now(), e_tag: e_tag.clone(), version: number.to_string() };
        let replaced = objects.insert(name.clone(), new);
        self.keep(name, replaced);
        Ok(e_tag)
    }

    /// Keeps what was replaced or deleted, in a bucket that does.
    fn keep(&self, name: String, object: Option<Object>) {
        if let Some(object) = object.filter(|_| self.keeps_versions.load(Ordering::Relaxed)) {
            self.older.lock().unwrap().insert((name, object.version.clone()), object);
        }
    }

    fn get(&self, bucket: &str, key: &str, version: Option<String>) -> S3Result<Object> {
        let name = format!("{bucket}/{key}");
        self.allow(Action::Read, &name)?;
        self.reads.fetch_add(1, Ordering::Relaxed);
        let newest = self.objects().get(&name).cloned();
        let is_wanted = |object: &Object| version.as_ref().is_none_or(|version| *version == object.version);
        let older = || self.older.lock().unwrap().get(&(name.clone(), version.clone()?)).cloned();
        newest.filter(is_wanted).or_else(older).ok_or_else(|| s3_error!(NoSuchKey))
    }

    /// Returns the version as a bucket without versions leaves it out.
    fn version_of(&self, object: &Object) -> Option<String> {
        self.keeps_versions.load(Ordering::Relaxed).then(|| object.version.clone())
    }
}

struct Shared(Arc<Bucket>);

async fn collect(body: Option<StreamingBlob>) -> S3Result<Bytes> {
    let Some(body) = body else { return Ok(Bytes::new()) };
    let whole: BytesMut = body.try_collect().await.map_err(|_| s3_error!(IncompleteBody))?;
    Ok(whole.freeze())
}

#[async_trait::async_trait]
impl S3 for Shared {
    async fn put_object(&self, req: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = req.input;
        let bytes = collect(input.body).await?;
        let only_new = input.if_none_match.is_some();
        let e_tag = self.0.put(format!("{}/{}", input.bucket, input.key), bytes, only_new)?;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(e_tag), ..Default::default() }))
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        let input = req.input;
        let CopySource::Bucket { bucket, key, version_id } = input.copy_source else {
            return Err(s3_error!(NotImplemented));
        };
        let object = self.0.get(&bucket, &key, version_id.map(String::from))?;
        let e_tag = self.0.put(format!("{}/{}", input.bucket, input.key), object.bytes, false)?;
        let result = CopyObjectResult { e_tag: Some(e_tag), ..Default::default() };
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..Default::default() }))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let object = self.0.get(&req.input.bucket, &req.input.key, req.input.version_id)?;
        Ok(S3Response::new(HeadObjectOutput {
            version_id: self.0.version_of(&object),
            content_length: Some(object.bytes.len() as i64),
            last_modified: Some(object.written_at.into()),
            e_tag: Some(object.e_tag),
            ..Default::default()
        }))
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let object = self.0.get(&req.input.bucket, &req.input.key, req.input.version_id)?;
        let version_id = self.0.version_of(&object);
        let all = object.bytes.len() as u64;
        let part = req.input.range.map(|range| range.check(all)).transpose()?;
        let bytes = match &part {
            Some(part) => object.bytes.slice(part.start as usize..part.end as usize),
            None => object.bytes,
        };
        self.0.bytes_read.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(bytes.len() as i64),
            version_id,
            content_range: part.map(|part| format!("bytes {}-{}/{all}", part.start, part.end - 1)),
            last_modified: Some(object.written_at.into()),
            e_tag: Some(object.e_tag),
            body: Some(StreamingBlob::wrap(futures::stream::iter([Ok::<_, std::io::Error>(bytes)]))),
            ..Default::default()
        }))
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = req.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        let after = input.continuation_token.clone().or(input.start_after).unwrap_or_default();
        let page = input.max_keys.map_or(PAGE_KEYS, |n| (n as usize).min(PAGE_KEYS));
        let root = format!("{}/", input.bucket);
        self.0.allow(Action::List, &format!("{root}{prefix}"))?;
        let (mut contents, mut folders, mut last) = (Vec::new(), BTreeSet::new(), None);
        let mut more = false;
        for (name, object) in self.0.objects().range(root.clone()..) {
            let Some(key) = name.strip_prefix(&root) else { break };
            let Some(rest) = key.strip_prefix(&prefix) else { continue };
            let folder = input.delimiter.as_ref().and_then(|d| Some(format!("{prefix}{}{d}", rest.split_once(d)?.0)));
            if key <= after.as_str() || folder.as_ref().is_some_and(|f| after.starts_with(f.as_str())) {
                continue;
            }
            let known = folder.as_ref().is_some_and(|folder| folders.contains(folder));
            if !known && contents.len() + folders.len() == page {
                more = true;
                break;
            }
            last = Some(key.to_string());
            match folder {
                Some(folder) => drop(folders.insert(folder)),
                None => contents.push(s3s::dto::Object {
                    key: Some(key.into()),
                    size: Some(object.bytes.len() as i64),
                    last_modified: Some(object.written_at.into()),
                    e_tag: Some(object.e_tag.clone()),
                    ..Default::default()
                }),
            }
        }
        Ok(S3Response::new(ListObjectsV2Output {
            key_count: Some((contents.len() + folders.len()) as i32),
            contents: Some(contents),
            common_prefixes: Some(folders.into_iter().map(|f| CommonPrefix { prefix: Some(f) }).collect()),
            is_truncated: Some(more),
            next_continuation_token: last.filter(|_| more),
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            ..Default::default()
        }))
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        let name = format!("{}/{}", req.input.bucket, req.input.key);
        self.0.allow(Action::Delete, &name)?;
        let removed = self.0.objects().remove(&name);
        self.0.keep(name, removed);
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let mut objects = self.0.objects();
        let mut deleted = Vec::new();
        for wanted in req.input.delete.objects {
            let name = format!("{}/{}", req.input.bucket, wanted.key);
            self.0.allow(Action::Delete, &name)?;
            let removed = objects.remove(&name);
            self.0.keep(name, removed);
            deleted.push(DeletedObject { key: Some(wanted.key), ..Default::default() });
        }
        Ok(S3Response::new(DeleteObjectsOutput { deleted: Some(deleted), ..Default::default() }))
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let id = format!("upload-{}", self.0.numbers.fetch_add(1, Ordering::Relaxed));
        self.0.uploads.lock().unwrap().insert(id.clone(), BTreeMap::new());
        Ok(S3Response::new(CreateMultipartUploadOutput {
            upload_id: Some(id),
            bucket: Some(req.input.bucket),
            key: Some(req.input.key),
            ..Default::default()
        }))
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let bytes = collect(req.input.body).await?;
        let mut uploads = self.0.uploads.lock().unwrap();
        let upload = uploads.get_mut(&req.input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        upload.insert(req.input.part_number, bytes);
        let e_tag = Some(format!("\"part-{}\"", req.input.part_number));
        Ok(S3Response::new(UploadPartOutput { e_tag, ..Default::default() }))
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = req.input;
        let parts = self.0.uploads.lock().unwrap().remove(&input.upload_id).ok_or_else(|| s3_error!(NoSuchUpload))?;
        let whole: BytesMut = parts.into_values().fold(BytesMut::new(), |mut whole, part| {
            whole.extend_from_slice(&part);
            whole
        });
        let only_new = input.if_none_match.is_some();
        let e_tag = self.0.put(format!("{}/{}", input.bucket, input.key), whole.freeze(), only_new)?;
        Ok(S3Response::new(CompleteMultipartUploadOutput {
            e_tag: Some(e_tag),
            bucket: Some(input.bucket),
            key: Some(input.key),
            ..Default::default()
        }))
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        self.0.uploads.lock().unwrap().remove(&req.input.upload_id);
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }
}
