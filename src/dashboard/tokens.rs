//! The two tokens of a sign-in, and the cookies that carry them.
//!
//! T1  A token names its owner and is otherwise 256 bits that nobody can guess; only its hash leaves this module for the
//!     store. Tokens are never logged.
//! T2  The pair after a refresh follows from the old refresh token and a seed, so that every node that is told the seed
//!     makes the same pair, and nobody can who does not hold the old token.

use actors::owner::events::{Pair, TokenHash};
use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use schema::ids::OwnerId;
use sha2::{Digest, Sha256};
use url::{Host, Url};

/// Cookie of the access token.
pub const ACCESS: &str = "ac_dashboard_session";
/// Cookie of the refresh token.
pub const REFRESH: &str = "ac_dashboard_refresh";
/// Longest value that can be a token.
const TOKEN_MAX: usize = 128;

/// A token that a client presents.
#[derive(Clone)]
pub struct Token {
    text: String,
    /// Whose it claims to be.
    pub owner: OwnerId,
}

impl Token {
    fn parse(text: &str) -> Option<Self> {
        let (owner, secret) = text.split_once('.').filter(|_| text.len() <= TOKEN_MAX)?;
        let owner = format!("own_{owner}").parse().ok()?;
        (!secret.is_empty()).then(|| Self { text: text.to_owned(), owner })
    }

    fn with_secret(owner: OwnerId, secret: &[u8]) -> Self {
        let text = format!("{}.{}", owner.0.as_str(), BASE64_URL_SAFE_NO_PAD.encode(secret));
        Self { text, owner }
    }

    /// What is stored and compared in place of the token.
    pub fn hash(&self) -> TokenHash {
        Sha256::digest(&self.text).into()
    }
}

/// Both tokens of a sign-in.
#[derive(Clone)]
pub struct Tokens {
    access: Token,
    refresh: Token,
}

impl Tokens {
    /// A first pair.
    pub fn fresh(owner: OwnerId) -> Self {
        let secret = || Token::with_secret(owner, &rand::random::<[u8; 32]>());
        Self { access: secret(), refresh: secret() }
    }

    /// The pair that follows from a refresh token (T2).
    pub fn after(refresh: &Token, seed: &[u8; 32]) -> Option<Self> {
        let secret = |label: &[u8]| {
            let mac = Hmac::<Sha256>::new_from_slice(refresh.text.as_bytes()).ok()?;
            let made = mac.chain_update(seed).chain_update(label).finalize().into_bytes();
            Some(Token::with_secret(refresh.owner, &made))
        };
        Some(Self { access: secret(b"access")?, refresh: secret(b"refresh")? })
    }

    /// Their hashes.
    pub fn pair(&self) -> Pair {
        Pair { access: self.access.hash(), refresh: self.refresh.hash() }
    }
}

fn cookie(headers: &HeaderMap, name: &str) -> Option<Token> {
    let pairs = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut values = pairs.flat_map(|pairs| pairs.split(';')).filter_map(|pair| pair.trim().split_once('='));
    values.find(|(key, _)| *key == name).and_then(|(_, value)| Token::parse(value))
}

/// The access token of a request.
pub fn access(headers: &HeaderMap) -> Option<Token> {
    cookie(headers, ACCESS)
}

/// The refresh token of a request.
pub fn refresh(headers: &HeaderMap) -> Option<Token> {
    cookie(headers, REFRESH)
}

/// Whether a server with this public URL is configured for plain HTTP on its own machine: only there cookies may travel
/// without encryption.
pub fn is_for_this_machine(base: &str) -> bool {
    let Ok(url) = Url::parse(base) else { return false };
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && loopback
}

fn set(base: &str, name: &str, value: &str, seconds: u64) -> (header::HeaderName, HeaderValue) {
    let secure = if is_for_this_machine(base) { "" } else { "; Secure" };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    // Both parts are ASCII that we made ourselves.
    (header::SET_COOKIE, HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("")))
}

/// Headers that give a browser its tokens; `base` is how clients reach this server.
pub fn given(base: &str, tokens: &Tokens) -> [(header::HeaderName, HeaderValue); 2] {
    let seconds = |millis: u64| millis / 1_000;
    [
        set(base, ACCESS, &tokens.access.text, seconds(actors::limits::ACCESS_MS)),
        set(base, REFRESH, &tokens.refresh.text, seconds(actors::limits::REFRESH_MS)),
    ]
}

/// Headers that take them away.
pub fn taken(base: &str) -> [(header::HeaderName, HeaderValue); 2] {
    [set(base, ACCESS, "", 0), set(base, REFRESH, "", 0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> OwnerId {
        OwnerId::of_email("o@example.com")
    }

    fn headers(cookies: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, cookies.parse().unwrap())])
    }

    #[test]
    fn cookies_come_back_and_garbage_is_nobody() {
        let tokens = Tokens::fresh(owner());
        let [access_header, refresh_header] = given("https://chat.example", &tokens);
        let pair = |header: &HeaderValue| header.to_str().unwrap().split(';').next().unwrap().to_owned();
        let both = headers(&format!("x=1; {}; {}", pair(&access_header.1), pair(&refresh_header.1)));
        assert_eq!(access(&both).map(|token| (token.owner, token.hash())), Some((owner(), tokens.access.hash())));
        assert_eq!(refresh(&both).map(|token| token.hash()), Some(tokens.refresh.hash()));
        for bad in ["", "ac_dashboard_session", "ac_dashboard_session=", "ac_dashboard_session=x.y", "other=1"] {
            assert!(access(&headers(bad)).is_none(), "{bad}");
        }
        let long = format!("ac_dashboard_session={}.{}", owner().0.as_str(), "x".repeat(200));
        assert!(access(&headers(&long)).is_none());
    }

    #[test]
    fn the_same_seed_makes_the_same_pair_and_every_other_another() {
        let old = Tokens::fresh(owner()).refresh;
        let pairs: Vec<_> = [1, 1, 2].map(|n| Tokens::after(&old, &[n; 32]).unwrap().pair()).into();
        assert_eq!(pairs[0], pairs[1]);
        assert_ne!(pairs[0], pairs[2]);
        assert_ne!(pairs[0].access, pairs[0].refresh);
        assert_ne!(pairs[0].refresh, old.hash());
    }

    #[test]
    #[rustfmt::skip] // the columns are the test
    fn cookies_are_plain_on_this_machine_only() {
        for (base, secure) in [
            ("http://127.0.0.1:8080", false),
            ("http://localhost",      false),
            ("http://[::1]:8080",     false),
            ("http://chat.localhost", false),
            ("http://0.0.0.0:8080",   true),
            ("https://127.0.0.1",     true),
            ("http://192.0.2.1",      true),
            ("http://localhost.evil", true),
            ("https://chat.example",  true),
        ] {
            for (_, value) in given(base, &Tokens::fresh(owner())).iter().chain(&taken(base)) {
                let text = value.to_str().unwrap();
                assert_eq!(text.ends_with("; Secure"), secure, "{base}");
                assert!(text.contains("; Path=/;") && text.contains("; HttpOnly; SameSite=Lax"), "{text}");
            }
        }
    }
}
