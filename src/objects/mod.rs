//! Bytes of attachments and avatars: a local directory, or any S3-compatible endpoint.
//!
//! O1  What is kept under an attachment's id has the announced length and SHA-256: bytes come through here on their way in.
//! O2  A URL that we sign opens one object for one method until it expires; whoever has it needs no key.
//! O3  Names of objects are made here of validated parts, so that no request chooses a path.

pub mod images;
mod signing;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use bytes::Bytes;
use futures_util::Stream;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::local::LocalFileSystem;
use object_store::path::Path as Key;
use object_store::signer::Signer as _;
use object_store::{Attribute, Attributes, ObjectStore, ObjectStoreExt, PutOptions, PutPayload};
use schema::rows::{AttachmentRow, Timestamp};
use sha2::{Digest, Sha256};

pub use self::signing::Signer;
use crate::wire::urls::Urls;

/// Signed URLs live this long; the contract's number.
pub const URL_LIFETIME: Duration = Duration::from_secs(300);

/// Why objects cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum ObjectsError {
    /// The setting.
    #[error("objects {0:?}: use `file` or `s3://bucket?endpoint=http://host:port`")]
    Setting(String),
    /// The directory or its key file.
    #[error("objects cannot be kept in {0}")]
    Directory(String, #[source] std::io::Error),
    /// The store of objects.
    #[error("objects cannot be reached")]
    Store(#[from] object_store::Error),
}

/// Why bytes were not kept.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// Not what was announced.
    #[error("length or SHA-256 differs from what was announced")]
    Mismatch,
    /// The store of objects.
    #[error(transparent)]
    Store(#[from] object_store::Error),
}

/// Where bytes lie.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn ObjectStore>,
    /// Signs downloads at an S3-compatible endpoint; without it we sign and serve them.
    s3: Option<Arc<AmazonS3>>,
    signer: Signer,
    urls: Arc<Urls>,
}

/// 64 lower-case hex digits.
pub fn is_sha256_hex(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl Objects {
    /// Opens what the setting names. The key that signs our URLs is made of the secret of a cluster, or lies in the data
    /// directory of a node that is alone.
    pub fn open(setting: &str, data_dir: &Path, urls: Arc<Urls>, secret: Option<&str>) -> Result<Self, ObjectsError> {
        let signer = secret
            .map_or_else(|| Signer::open(&data_dir.join("objects.key")), Signer::shared)
            .map_err(|error| ObjectsError::Directory(data_dir.display().to_string(), error))?;
        if setting == "file" {
            let dir = data_dir.join("objects");
            std::fs::create_dir_all(&dir).map_err(|error| ObjectsError::Directory(dir.display().to_string(), error))?;
            let store = LocalFileSystem::new_with_prefix(&dir)?.with_fsync(true);
            return Ok(Self { store: Arc::new(store), s3: None, signer, urls });
        }
        let s3 = Arc::new(s3(setting)?);
        Ok(Self { store: Arc::clone(&s3) as Arc<dyn ObjectStore>, s3: Some(s3), signer, urls })
    }

    /// Writes, reads and removes a small object at an S3-compatible endpoint.
    pub async fn probe(setting: &str) -> Result<(), ObjectsError> {
        let (store, key) = (s3(setting)?, Key::from_iter(["probes", &hex::encode(rand::random::<[u8; 8]>())]));
        store.put(&key, PutPayload::from_static(b"probe")).await?;
        store.get(&key).await?.bytes().await?;
        Ok(store.delete(&key).await?)
    }

    /// Verifies signatures of our own URLs.
    pub fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Where the bytes of an announced attachment have to be put.
    pub fn upload_url(&self, id: &str, now: Timestamp) -> String {
        format!("{}/objects/{id}?{}", self.urls.base(), self.signer.query(&Method::PUT, id, now, URL_LIFETIME))
    }

    /// Where the bytes of an attachment can be had for a while.
    pub async fn download_url(&self, row: &AttachmentRow, now: Timestamp) -> Result<String, object_store::Error> {
        match &self.s3 {
            Some(s3) => Ok(s3.signed_url(Method::GET, &attachment(&row.id), URL_LIFETIME).await?.to_string()),
            None => {
                let query = self.signer.query(&Method::GET, &row.id, now, URL_LIFETIME);
                Ok(format!("{}/objects/{}?{query}", self.urls.base(), row.id))
            }
        }
    }

    /// Keeps the bytes of an attachment if they are what was announced (O1).
    pub async fn put(&self, row: &AttachmentRow, bytes: Bytes) -> Result<(), PutError> {
        if bytes.len() as u64 != row.size || hex::encode(Sha256::digest(&bytes)) != row.sha256 {
            return Err(PutError::Mismatch);
        }
        let mut attributes = Attributes::new();
        if self.s3.is_some() {
            attributes.insert(Attribute::ContentType, row.content_type.clone().into());
            attributes.insert(Attribute::ContentDisposition, disposition(&row.filename).into());
            attributes.insert(Attribute::CacheControl, "private, no-store".into());
        }
        let options = PutOptions { attributes, ..PutOptions::default() };
        self.store.put_opts(&attachment(&row.id), PutPayload::from(bytes), options).await?;
        Ok(())
    }

    /// The bytes of an attachment.
    pub async fn read(
        &self,
        id: &str,
    ) -> Result<impl Stream<Item = Result<Bytes, object_store::Error>> + use<>, object_store::Error> {
        Ok(self.store.get(&attachment(id)).await?.into_stream())
    }

    /// Keeps a picture under the hash of its bytes; the key that it can be had by.
    pub async fn put_avatar(&self, webp: Vec<u8>) -> Result<String, object_store::Error> {
        let key = format!("{}.webp", hex::encode(Sha256::digest(&webp)));
        self.store.put(&avatar(&key), PutPayload::from(webp)).await?;
        Ok(key)
    }

    /// A picture; `None` for what is no key of one (O3).
    pub async fn avatar(&self, key: &str) -> Result<Option<Bytes>, object_store::Error> {
        let hash = key.strip_suffix(".webp").unwrap_or_default();
        if !is_sha256_hex(hash) {
            return Ok(None);
        }
        match self.store.get(&avatar(key)).await {
            Ok(found) => found.bytes().await.map(Some),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn attachment(id: &str) -> Key {
    Key::from_iter(["attachments", id])
}

fn avatar(key: &str) -> Key {
    Key::from_iter(["avatars", key])
}

/// `s3://bucket?endpoint=…&region=…`; credentials from the setting or the usual `AWS_*` variables.
fn s3(setting: &str) -> Result<AmazonS3, ObjectsError> {
    let bad = || ObjectsError::Setting(setting.split('?').next().unwrap_or_default().to_owned());
    let url = url::Url::parse(setting).map_err(|_| bad())?;
    if url.scheme() != "s3" {
        return Err(bad());
    }
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(url.host_str().ok_or_else(bad)?);
    for (name, value) in url.query_pairs() {
        builder = match name.as_ref() {
            "endpoint" => builder.with_allow_http(value.starts_with("http://")).with_endpoint(value),
            "region" => builder.with_region(value),
            "access_key_id" => builder.with_access_key_id(value),
            "secret_access_key" => builder.with_secret_access_key(value),
            _ => return Err(bad()),
        };
    }
    Ok(builder.build()?)
}

/// `Content-Disposition` that saves under `filename`, with a fallback of plain letters (RFC 6266).
pub fn disposition(filename: &str) -> String {
    let plain = |c: char| if c.is_ascii_graphic() && !matches!(c, '"' | '\\') || c == ' ' { c } else { '_' };
    let fallback: String = filename.chars().map(plain).collect();
    let safe = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(byte);
    let encoded: String = filename
        .bytes()
        .map(|byte| if safe(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    format!("attachment; filename=\"{fallback}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;
    use schema::ids::{AgentId, Key};

    use super::*;

    fn row(bytes: &[u8]) -> AttachmentRow {
        AttachmentRow {
            id: "att_0123456789abcdef".into(),
            uploader: AgentId(Key::from_bytes([1; 16])),
            to: None,
            scope: None,
            filename: "a b.txt".into(),
            content_type: "text/plain".into(),
            size: bytes.len() as u64,
            sha256: hex::encode(Sha256::digest(bytes)),
            uploaded: false,
            created_at: Timestamp(0),
        }
    }

    async fn check_round_trip(objects: &Objects) {
        let row = row(b"hello");
        assert!(matches!(objects.put(&row, Bytes::from_static(b"hellO")).await, Err(PutError::Mismatch)));
        assert!(matches!(objects.put(&row, Bytes::from_static(b"hell")).await, Err(PutError::Mismatch)));
        assert!(objects.read(&row.id).await.is_err(), "nothing is kept");
        for _ in 0..2 {
            objects.put(&row, Bytes::from_static(b"hello")).await.expect("kept");
        }
        let chunks: Vec<Bytes> = objects.read(&row.id).await.expect("there").try_collect().await.expect("read");
        assert_eq!(chunks.concat(), b"hello");
        let key = objects.put_avatar(b"webp".to_vec()).await.expect("kept");
        assert_eq!(objects.avatar(&key).await.expect("read").as_deref(), Some(&b"webp"[..]));
        assert_eq!(objects.avatar(&key.replace(char::is_numeric, "0")).await.expect("read"), None);
        for bad in ["", "x", "../objects.key", "..%2f", &"g".repeat(64)] {
            assert_eq!(objects.avatar(bad).await.expect("read"), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_directory_keeps_what_was_announced_and_nothing_else() {
        let dir = tempfile::tempdir().expect("dir");
        let urls = Arc::new(Urls::new("http://x".into()));
        check_round_trip(&Objects::open("file", dir.path(), urls, None).expect("opens")).await;
    }

    /// Against a real server: `AGENTCHAT_TEST_S3=s3://bucket?endpoint=…&access_key_id=…&secret_access_key=…`.
    #[tokio::test]
    async fn an_s3_endpoint_keeps_the_same() {
        let Ok(setting) = std::env::var("AGENTCHAT_TEST_S3") else { return };
        let dir = tempfile::tempdir().expect("dir");
        let urls = Arc::new(Urls::new("http://x".into()));
        let objects = Objects::open(&setting, dir.path(), urls, None).expect("opens");
        check_round_trip(&objects).await;
        let url = objects.download_url(&row(b"hello"), Timestamp(0)).await.expect("signed");
        let answer = reqwest::get(&url).await.expect("answered");
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.bytes().await.expect("read"), &b"hello"[..]);
        let forged = url.replace("X-Amz-Signature=", "X-Amz-Signature=0");
        assert!(!reqwest::get(&forged).await.expect("answered").status().is_success());
    }

    #[test]
    fn settings_that_cannot_work_are_refused() {
        let urls = Arc::new(Urls::new("http://x".into()));
        let dir = tempfile::tempdir().expect("dir");
        for bad in ["", "ftp://x", "s3://", "s3://bucket?colour=red"] {
            assert!(Objects::open(bad, dir.path(), Arc::clone(&urls), None).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_cannot_break_the_header() {
        let header = disposition("a\"b\\c\r\nd é.txt");
        assert_eq!(header, "attachment; filename=\"a_b_c__d _.txt\"; filename*=UTF-8''a%22b%5Cc%0D%0Ad%20%C3%A9.txt");
        assert!(axum::http::HeaderValue::from_str(&header).is_ok());
    }
}
