//! Signatures of our own URLs: HMAC-SHA256 over method, object and expiry, with a key that never leaves the nodes.

use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use axum::http::Method;
use hmac::{Hmac, Mac};
use rand::Rng;
use schema::rows::Timestamp;
use sha2::Sha256;

use crate::wire::fields::Query;

/// Holds the key.
#[derive(Clone)]
pub struct Signer {
    key: [u8; 32],
}

impl Signer {
    /// A key that every node of a cluster makes of the secret they share: a link of one opens at all.
    pub fn shared(secret: &str) -> io::Result<Self> {
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(io::Error::other)?;
        mac.update(b"links to objects");
        Ok(Self { key: mac.finalize().into_bytes().into() })
    }

    /// The key of this directory; made on the first start. Nodes that share a directory share the key.
    pub fn open(file: &Path) -> io::Result<Self> {
        if let Some(key) = read(file)? {
            return Ok(Self { key });
        }
        make(file)?;
        let key = read(file)?.ok_or_else(|| io::Error::other("the signing key has vanished"))?;
        Ok(Self { key })
    }

    fn mac(&self, method: &Method, object: &str, expires: u64) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).ok()?;
        mac.update(format!("{method} {object} {expires}").as_bytes());
        Some(mac)
    }

    /// Query that opens `object` for `method`.
    pub fn query(&self, method: &Method, object: &str, now: Timestamp, lifetime: Duration) -> String {
        let expires = now.0 / 1_000 + lifetime.as_secs();
        let mac = self.mac(method, object, expires).map(|mac| hex::encode(mac.finalize().into_bytes()));
        format!("expires={expires}&sig={}", mac.unwrap_or_default())
    }

    /// Whether this query opens `object` for `method` now. Compares in constant time.
    pub fn opens(&self, method: &Method, object: &str, query: &Query, now: Timestamp) -> bool {
        let expires = query.text("expires").and_then(|text| text.parse::<u64>().ok());
        let signature = query.text("sig").and_then(|text| hex::decode(text).ok());
        let (Some(expires), Some(signature)) = (expires, signature) else { return false };
        let right = self.mac(method, object, expires).is_some_and(|mac| mac.verify_slice(&signature).is_ok());
        right && now.0 / 1_000 < expires
    }
}

fn read(file: &Path) -> io::Result<Option<[u8; 32]>> {
    match std::fs::read(file) {
        Ok(bytes) => bytes.try_into().map(Some).map_err(|_| io::Error::other("the signing key has another length")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes a key that is there whole or not at all; whoever comes second takes the first one's.
fn make(file: &Path) -> io::Result<()> {
    let draft = file.with_extension(format!("{:016x}", rand::rng().random::<u64>()));
    let mut made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    made.write_all(&rand::rng().random::<[u8; 32]>())?;
    made.sync_all()?;
    let linked = std::fs::hard_link(&draft, file);
    std::fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Query {
        Query::new(serde_urlencoded::from_str(query).unwrap())
    }

    #[test]
    fn nodes_that_start_at_once_over_one_directory_have_one_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let keys: Vec<[u8; 32]> = std::thread::scope(|scope| {
            let open = || Signer::open(&file).unwrap().key;
            let opening: Vec<_> = (0..16).map(|_| scope.spawn(open)).collect();
            opening.into_iter().map(|opened| opened.join().unwrap()).collect()
        });
        assert!(keys.iter().all(|key| *key == keys[0]));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no drafts are left");
    }

    #[test]
    fn a_signature_opens_one_object_for_one_method_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::open(&dir.path().join("key")).unwrap();
        let again = Signer::open(&dir.path().join("key")).unwrap();
        let (now, lifetime) = (Timestamp(1_000_000), Duration::from_secs(300));
        let query = signer.query(&Method::PUT, "att_1", now, lifetime);
        assert!(again.opens(&Method::PUT, "att_1", &parse(&query), now), "the key survives a restart");
        let opens = |method, object, query: &str, at| signer.opens(&method, object, &parse(query), at);
        assert!(opens(Method::PUT, "att_1", &query, now.plus_ms(299_000)));
        assert!(!opens(Method::PUT, "att_1", &query, now.plus_ms(300_000)), "expired");
        assert!(!opens(Method::GET, "att_1", &query, now), "another method");
        assert!(!opens(Method::PUT, "att_2", &query, now), "another object");
        assert!(!opens(Method::PUT, "att_1", &query.replace("expires=1300", "expires=9999"), now), "another time");
        let (one, other) = (Signer::shared("a cookie").unwrap(), Signer::shared("a cookie").unwrap());
        let query_of_one = one.query(&Method::GET, "att_1", now, lifetime);
        assert!(other.opens(&Method::GET, "att_1", &parse(&query_of_one), now), "one secret, one key");
        let stranger = Signer::shared("another cookie").unwrap();
        assert!(!stranger.opens(&Method::GET, "att_1", &parse(&query_of_one), now));
        for bad in ["", "expires=1300", "expires=x&sig=00", "expires=1300&sig=zz", "expires=1300&sig=00"] {
            assert!(!opens(Method::PUT, "att_1", bad, now), "{bad}");
        }
    }
}
