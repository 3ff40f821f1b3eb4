//! From what an entity wants told to the JSON that a webhook gets: the same payload as on a socket.

use std::sync::Arc;

use actors::api::Notice;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::app::{Groups, Profiles};
use crate::clock::Clock;
use crate::queries::context::{Context, place};
use crate::wire::message::{MessageState, message_value};
use crate::wire::time::Ts;
use crate::wire::urls::Urls;
use crate::ws::notice_payload;

/// Knows names, groups and URLs.
#[derive(Clone)]
pub struct Translator {
    /// Names shown beside messages.
    pub profiles: Arc<Profiles>,
    /// Groups shown beside messages.
    pub groups: Arc<Groups>,
    /// Absolute URLs.
    pub urls: Arc<Urls>,
    /// Wall clock.
    pub clock: Clock,
}

#[derive(Serialize)]
struct Body {
    event: &'static str,
    timestamp: Ts,
    data: Box<RawValue>,
}

impl Translator {
    /// The body of a delivery; `None` when it cannot be made.
    pub async fn body(&self, notice: &Notice) -> Option<Arc<str>> {
        let (event, data) = match notice {
            Notice::Message(message) => {
                let context =
                    Context::with(&self.profiles, &self.groups, vec![place(message)]).await.unwrap_or_default();
                let value = message_value(message, context.about(message), MessageState::default());
                ("message.new", serde_json::value::to_raw_value(&value).ok()?)
            }
            Notice::Frame(frame) => {
                let (event, payload) = notice_payload(frame, &self.urls);
                (event, raw(&payload)?)
            }
            Notice::Blocked { handle, at } => {
                ("contact.blocked", raw(&json!({"handle": handle, "blocked_at": Ts(*at)}))?)
            }
        };
        let body = Body { event, timestamp: Ts(self.clock.now()), data };
        serde_json::to_string(&body).ok().map(Arc::from)
    }
}

fn raw(value: &Value) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(value).ok()
}
