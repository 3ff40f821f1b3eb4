//! Signatures of our own URLs: HMAC-SHA256 over method, object and expiry, with a key that never leaves the nodes.

use std::io;
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

    /// The key of this directory; made on the first start.
    pub fn open(file: &Path) -> io::Result<Self> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        match std::fs::read(file) {
            Ok(bytes) => {
                let key = bytes.try_into().map_err(|_| io::Error::other("the signing key has another length"))?;
                Ok(Self { key })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key: [u8; 32] = rand::rng().random();
                let mut made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
                made.write_all(&key)?;
                made.sync_all()?;
                Ok(Self { key })
            }
            Err(error) => Err(error),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Query {
        Query::new(serde_urlencoded::from_str(query).unwrap())
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
