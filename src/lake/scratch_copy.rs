//! Copies an object to a scratch file, and a scratch file to an object, so that none is held in memory.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Attributes, GetResultPayload, ObjectStoreExt, PutMultipartOptions, PutOptions, WriteMultipart};
use std::fs::File;
use std::io::{Read, Seek, Write};

use super::stores::Location;
use crate::failure::{Failure, Result};

/// Number of parts that are sent at once.
const PARTS_AT_ONCE: usize = 2;

/// Sizes from which an object is sent in parts, and of the parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UploadSizes {
    /// Up to this size in bytes, one request has the whole object, which a store can refuse to put over another version.
    pub(crate) whole_bytes_max: u64,
    pub(crate) part_bytes_min: u64,
}

impl Default for UploadSizes {
    fn default() -> Self {
        Self { whole_bytes_max: 64 << 20, part_bytes_min: 16 << 20 }
    }
}

impl UploadSizes {
    /// Returns the size of a part in bytes. S3 takes at most 10,000.
    fn part_bytes(self, size: u64) -> usize {
        usize::try_from(size.div_ceil(9_000).max(self.part_bytes_min)).unwrap_or(usize::MAX)
    }
}

/// An object as a file. Of local stores it is the object itself: only to be read.
pub(crate) struct ScratchCopy {
    pub(crate) file: File,
    /// Its content type, the metadata that its writer gave it, and what else the store tells with an object.
    pub(crate) attributes: Attributes,
}

/// Creates a scratch file without a name in a folder.
pub(crate) fn create(folder: &std::path::Path) -> Result<File> {
    tempfile::tempfile_in(folder).map_err(|e| failure(&e).at(folder.display()))
}

/// Makes a failure (exit 75) of a scratch file.
pub(crate) fn failure(error: &std::io::Error) -> Failure {
    Failure::transient(format!("scratch file: {error}"))
        .hint("check the free space in engine.spill_folder (if empty, in the system's temporary folder)")
}

/// Reads an object into a scratch file of `folder`; `None` if there is no such object.
pub(crate) async fn download(from: &Location, path: &Path, folder: &std::path::Path) -> Result<Option<ScratchCopy>> {
    let at = |e: object_store::Error| Failure::from(e).at(from.display(path));
    let got = match from.store.get(path).await {
        Ok(got) => got,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(e) => return Err(at(e)),
    };
    let attributes = got.attributes.clone();
    let mut chunks = match got.payload {
        GetResultPayload::File(file, _) => return Ok(Some(ScratchCopy { file, attributes })),
        GetResultPayload::Stream(chunks) => chunks.map_err(at).boxed(),
    };
    let mut file = create(folder)?;
    while let Some(chunk) = chunks.try_next().await? {
        file.write_all(&chunk).map_err(|e| failure(&e))?;
    }
    Ok(Some(ScratchCopy { file, attributes }))
}

/// Writes a file as an object, replacing an existing one. A large object is sent in parts, and `options.mode` does not count for
/// it: `check` runs right before it becomes visible.
pub(crate) async fn upload(
    to: &Location,
    path: &Path,
    mut file: File,
    options: PutOptions,
    sizes: UploadSizes,
    check: impl Future<Output = Result<()>>,
) -> Result<()> {
    let at = |e: object_store::Error| Failure::from(e).at(to.display(path));
    let size = file.metadata().and_then(|found| file.rewind().map(|()| found.len())).map_err(|e| failure(&e))?;
    if size <= sizes.whole_bytes_max {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|e| failure(&e))?;
        check.await?;
        to.store.put_opts(path, bytes.into(), options).await.map_err(at)?;
        return Ok(());
    }
    let PutOptions { attributes, tags, extensions, .. } = options;
    let in_parts = PutMultipartOptions { attributes, tags, extensions };
    let part_bytes = sizes.part_bytes(size);
    let upload = to.store.put_multipart_opts(path, in_parts).await.map_err(at)?;
    let mut parts = WriteMultipart::new_with_chunk_size(upload, part_bytes);
    let sent = async {
        loop {
            let mut part = Vec::with_capacity(part_bytes);
            let read = (&file).take(part_bytes as u64).read_to_end(&mut part).map_err(|e| failure(&e))?;
            if read == 0 {
                return check.await;
            }
            parts.wait_for_capacity(PARTS_AT_ONCE).await.map_err(at)?;
            parts.put(Bytes::from(part));
        }
    };
    match sent.await {
        Ok(()) => parts.finish().await.map(|_| ()).map_err(at),
        Err(failure) => {
            parts.abort().await.map_err(at)?;
            Err(failure)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::S3Config;
    use object_store::{Attribute, PutMode};

    #[tokio::test]
    async fn an_object_goes_to_a_file_and_back_whole_or_in_parts() {
        let folder = tempfile::tempdir().unwrap();
        let local = folder.path().display().to_string();
        for place in ["memory://scratch-copy", local.as_str()] {
            let store = Location::open(place, &S3Config::default()).unwrap();
            let bytes: Vec<u8> = (0..100_000_u32).map(|value| (value % 251) as u8).collect();
            let (from, to) = (store.path("from"), store.path("to"));
            store.write("from", bytes.clone()).await.unwrap();
            for whole_bytes_max in [100_000, 99_999] {
                let sizes = UploadSizes { whole_bytes_max, part_bytes_min: 1000 };
                let copy = download(&store, &from, folder.path()).await.unwrap().unwrap();
                let options = PutOptions { attributes: copy.attributes, ..Default::default() };
                upload(&store, &to, copy.file, options, sizes, async { Ok(()) }).await.unwrap();
                assert_eq!(store.read("to").await.unwrap(), bytes, "{place}");
                store.delete(vec![to.clone()]).await.unwrap();
                // The check decides, also about what was sent already.
                let copy = download(&store, &from, folder.path()).await.unwrap().unwrap();
                let check = async { Err(Failure::transient("changed")) };
                let said = upload(&store, &to, copy.file, PutOptions::default(), sizes, check).await.unwrap_err();
                assert_eq!(said.message, "changed");
                assert!(store.read_if_there("to").await.unwrap().is_none());
            }
            assert!(download(&store, &to, folder.path()).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn the_content_type_and_the_mode_count() {
        let folder = tempfile::tempdir().unwrap();
        let store = Location::open("memory://scratch-copy-typed", &S3Config::default()).unwrap();
        store.write_as("from", "text", "text/csv").await.unwrap();
        let copy = download(&store, &store.path("from"), folder.path()).await.unwrap().unwrap();
        assert_eq!(copy.attributes.get(&Attribute::ContentType).map(|value| value.as_ref()), Some("text/csv"));
        let only_new = PutOptions { mode: PutMode::Create, attributes: copy.attributes, ..Default::default() };
        let place = store.path("from");
        let taken = upload(&store, &place, copy.file, only_new, UploadSizes::default(), async { Ok(()) });
        assert!(taken.await.is_err());
    }

    #[test]
    fn no_object_has_more_parts_than_stores_take() {
        let sizes = UploadSizes::default();
        assert_eq!(sizes.part_bytes(100 << 20), 16 << 20);
        // 5 TiB, the largest object of S3.
        assert!((5_u64 << 40).div_ceil(sizes.part_bytes(5 << 40) as u64) <= 9_000);
    }
}
