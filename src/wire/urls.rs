//! Absolute URLs that answers contain.

use schema::rows::Picture;

/// The base of every URL that we emit.
#[derive(Debug, Clone)]
pub struct Urls {
    base: String,
}

impl Urls {
    /// `base` without a trailing slash.
    pub fn new(base: String) -> Self {
        Self { base }
    }

    /// The base itself.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where an uploaded avatar is served.
    pub fn avatar(&self, key: &str) -> String {
        format!("{}/avatars/{key}", self.base)
    }

    /// The same for what may not be set.
    pub fn avatar_of(&self, key: Option<&str>) -> Option<String> {
        key.map(|key| self.avatar(key))
    }

    /// The picture of a group.
    pub fn picture(&self, picture: Option<&Picture>) -> Option<String> {
        match picture? {
            Picture::Object(key) => Some(self.avatar(key)),
            Picture::Url(url) => Some(url.clone()),
        }
    }
}
