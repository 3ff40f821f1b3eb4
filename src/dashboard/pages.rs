//! The pages of the owner dashboard: one shell of HTML for every path, and the files it loads.
//!
//! G1  Everything is compiled in: a binary alone serves the dashboard, and nothing is loaded from elsewhere.
//! G2  No inline script or style, and a policy that forbids both; scripts have no way to turn text into markup.
//! G3  A file is named under the hash of all files, so it may be cached for ever; the shell is asked for each time.
//! G4  A page holds no data and tells nobody apart: what it shows it asks of `/dashboard/*` with the owner's cookies.

use std::sync::OnceLock;

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::wire::error::ApiError;

const SHELL: &str = include_str!("pages/shell.html");
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// What the shell loads: name, content type, text.
const FILES: [(&str, &str, &str); 31] = [
    ("account.js", SCRIPT, include_str!("pages/account.js")),
    ("activity.js", SCRIPT, include_str!("pages/activity.js")),
    ("api.js", SCRIPT, include_str!("pages/api.js")),
    ("avatar.js", SCRIPT, include_str!("pages/avatar.js")),
    ("base.css", STYLE, include_str!("pages/base.css")),
    ("chat.css", STYLE, include_str!("pages/chat.css")),
    ("chat.js", SCRIPT, include_str!("pages/chat.js")),
    ("chats.js", SCRIPT, include_str!("pages/chats.js")),
    ("claim.js", SCRIPT, include_str!("pages/claim.js")),
    ("content.js", SCRIPT, include_str!("pages/content.js")),
    ("dom.js", SCRIPT, include_str!("pages/dom.js")),
    ("format.js", SCRIPT, include_str!("pages/format.js")),
    ("group.js", SCRIPT, include_str!("pages/group.js")),
    ("icon.svg", IMAGE, include_str!("pages/icon.svg")),
    ("icons.js", SCRIPT, include_str!("pages/icons.js")),
    ("layout.css", STYLE, include_str!("pages/layout.css")),
    ("live.js", SCRIPT, include_str!("pages/live.js")),
    ("login.js", SCRIPT, include_str!("pages/login.js")),
    ("main.js", SCRIPT, include_str!("pages/main.js")),
    ("overlay.js", SCRIPT, include_str!("pages/overlay.js")),
    ("people.js", SCRIPT, include_str!("pages/people.js")),
    ("presence.js", SCRIPT, include_str!("pages/presence.js")),
    ("profile.js", SCRIPT, include_str!("pages/profile.js")),
    ("router.js", SCRIPT, include_str!("pages/router.js")),
    ("settings.js", SCRIPT, include_str!("pages/settings.js")),
    ("sidebar.js", SCRIPT, include_str!("pages/sidebar.js")),
    ("state.js", SCRIPT, include_str!("pages/state.js")),
    ("theme.js", SCRIPT, include_str!("pages/theme.js")),
    ("thread.js", SCRIPT, include_str!("pages/thread.js")),
    ("timeline.js", SCRIPT, include_str!("pages/timeline.js")),
    ("workspace.js", SCRIPT, include_str!("pages/workspace.js")),
];

/// Pictures come from this server, and attachments from wherever it signs their URLs: those are opened, not embedded.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'";

/// What goes with every page and every file.
const GUARDS: [(HeaderName, &str); 5] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// Every path a page has, and `/assets/{version}/{name}`.
pub fn routes() -> Router<App> {
    let pages = [
        "/",
        "/login",
        "/account",
        "/agents/{handle}",
        "/agents/{handle}/conversations/{id}",
        "/agents/{handle}/contacts",
        "/agents/{handle}/blocks",
        "/agents/{handle}/activity",
        "/agents/{handle}/settings",
    ];
    let router = Router::new().route("/assets/{version}/{name}", get(file));
    pages.into_iter().fold(router, |router, path| router.route(path, get(page)))
}

/// The hash of all files (G3).
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let mut hash = Sha256::new();
        for (name, _, text) in FILES {
            hash.update(name);
            hash.update([0]);
            hash.update(text);
            hash.update([0]);
        }
        hex::encode(&hash.finalize()[..12])
    })
}

/// The shell, with the addresses of this version's files.
fn shell() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let modules = FILES.iter().filter(|(name, kind, _)| *kind == SCRIPT && *name != "theme.js");
        let preload: String = modules
            .map(|(name, ..)| format!("<link rel=\"modulepreload\" href=\"/assets/{{{{VERSION}}}}/{name}\">\n"))
            .collect();
        SHELL.replace("{{PRELOAD}}\n", &preload).replace("{{VERSION}}", version())
    })
}

async fn page(request: HeaderMap) -> Response {
    answer(&request, "text/html; charset=utf-8", "no-cache", shell())
}

/// A file of another version is answered with ours, and not kept: while nodes of two versions serve, a page that one
/// of them sent may ask the other.
async fn file(Path((asked, name)): Path<(String, String)>, request: HeaderMap) -> Result<Response, ApiError> {
    let found = FILES.iter().find(|(known, ..)| *known == name);
    let (_, kind, text) = found.ok_or(ApiError::NotFound)?;
    let cache = if asked == version() { "public, max-age=31536000, immutable" } else { "no-store" };
    Ok(answer(&request, kind, cache, text))
}

/// 200 with the text, or 304 when the client has this version already.
fn answer(request: &HeaderMap, kind: &'static str, cache: &'static str, text: &'static str) -> Response {
    let tag = format!("\"{}\"", version());
    let known = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let fresh = known.flat_map(|value| value.split(',')).any(|value| value.trim().trim_start_matches("W/") == tag);
    let mut response = if fresh { StatusCode::NOT_MODIFIED.into_response() } else { text.into_response() };
    let headers = response.headers_mut();
    for (name, value) in GUARDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.extend(HeaderValue::from_str(&tag).ok().map(|tag| (header::ETAG, tag)));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_file_beside_the_shell_is_served() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/dashboard/pages");
        let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let served: BTreeSet<String> = FILES.iter().map(|(name, ..)| (*name).to_owned()).collect();
        assert_eq!(names.filter(|name| name != "shell.html").collect::<BTreeSet<_>>(), served);
    }

    #[test]
    fn nothing_is_inline_or_from_elsewhere() {
        let page = shell();
        assert!(!page.contains("{{") && !page.contains("<style") && !page.contains("style=") && !page.contains(" on"));
        assert_eq!(page.matches("<script").count(), page.matches("\"></script>").count(), "a script with a body");
        for (name, _, text) in FILES.into_iter().chain([("shell.html", "", page)]) {
            let addresses = text.matches("://").count() - text.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(addresses, 0, "{name} names an address elsewhere");
            for word in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"] {
                assert!(!text.contains(word), "{name} uses {word}");
            }
        }
    }

    #[test]
    fn scripts_import_only_what_is_served() {
        for (name, kind, text) in FILES {
            let imports = text.lines().filter(|_| kind == SCRIPT).filter_map(|line| line.split_once(" from './"));
            for (_, rest) in imports {
                let imported = rest.trim_end_matches("';");
                assert!(FILES.iter().any(|(known, ..)| *known == imported), "{name} imports {imported}");
            }
        }
    }

    #[tokio::test]
    async fn a_file_is_kept_for_ever_under_its_version_only() {
        let cache = |response: &Response| response.headers()[header::CACHE_CONTROL].to_str().unwrap().to_owned();
        let ask = |asked: &str, name: &str| file(Path((asked.to_owned(), name.to_owned())), HeaderMap::new());
        let current = ask(version(), "main.js").await.unwrap();
        assert!(cache(&current).ends_with("immutable"));
        assert_eq!(current.headers()[header::CONTENT_TYPE], SCRIPT);
        assert_eq!(cache(&ask("older", "main.js").await.unwrap()), "no-store");
        assert_eq!(ask(version(), "none.js").await.unwrap_err(), ApiError::NotFound);
    }

    #[tokio::test]
    async fn the_shell_is_asked_for_each_time_and_sent_once() {
        let first = page(HeaderMap::new()).await;
        assert_eq!(
            (first.status(), &first.headers()[header::CACHE_CONTROL]),
            (StatusCode::OK, &"no-cache".parse().unwrap())
        );
        let tag = first.headers()[header::ETAG].clone();
        let again = page(HeaderMap::from_iter([(header::IF_NONE_MATCH, tag)])).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
    }
}
