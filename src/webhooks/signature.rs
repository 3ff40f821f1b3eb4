//! `Agentchat-Signature: t=<unix seconds>,v1=<hex>`: HMAC-SHA256 over `<t>.<raw body>` with the bytes of the whole secret.

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The header's value.
pub fn header(secret: &str, unix_seconds: u64, body: &[u8]) -> String {
    // Keys of any length are accepted: shorter ones are padded, longer ones hashed.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else { return String::new() };
    mac.update(unix_seconds.to_string().as_bytes());
    mac.update(b".");
    mac.update(body);
    format!("t={unix_seconds},v1={}", hex::encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python: `hmac.new(b"whsec_x", b'1700000000.{"a":1}', "sha256").hexdigest()`.
    #[test]
    fn a_known_signature() {
        let expected = "t=1700000000,v1=b3438763ab46d9634b9844c8722818eaf523f803db1327484c6067462a5fd6d1";
        assert_eq!(header("whsec_x", 1_700_000_000, br#"{"a":1}"#), expected);
    }
}
