//! What to do about a client frame: a state machine without I/O, one per socket.
//!
//! P1  Acks are never limited: a drain yields thousands in one burst.
//! P2  Nothing a client sends after it was let in ends its socket; only size does, and that is the transport's matter.

use actors::limits::Bucket;
use schema::ids::{ConversationId, MessageId, Seq};
use schema::rows::{PresenceStatus, Timestamp};

use super::frames::{self, Incoming, Parsed};
use crate::wire::error::ApiError;

/// Frames per second beside acks; the contract's number.
const FRAMES_PER_SECOND: u32 = 50;

/// What the socket has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Acknowledge.
    Ack(MessageId),
    /// Mark read through.
    ReadThrough(ConversationId, Seq),
    /// Mark one message read; errors echo the id.
    ReadOne(MessageId, Option<String>),
    /// Relay.
    Typing(ConversationId, bool),
    /// Set the agent's presence.
    Presence(PresenceStatus, Option<String>),
    /// Write this frame.
    Reply(String),
    /// Nothing.
    Nothing,
}

/// What a socket remembers between frames.
#[derive(Debug, Default)]
pub struct Protocol {
    frames: Bucket,
}

impl Protocol {
    /// Judges one text frame.
    pub fn on_text(&mut self, now: Timestamp, text: &str) -> Action {
        let Parsed { frame, id } = frames::parse(text);
        if let Incoming::Ack(message) = frame {
            return Action::Ack(message);
        }
        if let Err(retry_after_ms) = self.frames.take(now, Some(FRAMES_PER_SECOND)) {
            return Action::Reply(frames::error(&ApiError::RateLimited { retry_after_ms }, id.as_deref()));
        }
        match frame {
            Incoming::ReadThrough(conversation, through) => Action::ReadThrough(conversation, through),
            Incoming::ReadOne(message) => Action::ReadOne(message, id),
            Incoming::Typing(conversation, start) => Action::Typing(conversation, start),
            Incoming::Unsupported => Action::Reply(frames::unsupported(id.as_deref())),
            Incoming::Invalid(error) => Action::Reply(frames::error(&error, id.as_deref())),
            Incoming::Presence(status, message) => Action::Presence(status, message),
            Incoming::Ack(_) | Incoming::Ignored => Action::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use schema::ids::{AgentId, Key};

    use super::*;

    #[test]
    fn acks_are_exempt_from_the_frame_limit() {
        let mut protocol = Protocol::default();
        let conversation = ConversationId::direct(AgentId(Key::from_bytes([1; 16])), AgentId(Key::from_bytes([2; 16])));
        let message = MessageId { conversation, seq: Seq(1) };
        let now = Timestamp(1_000);
        for _ in 0..FRAMES_PER_SECOND {
            assert_eq!(protocol.on_text(now, r#"{"type":"x"}"#), Action::Nothing);
        }
        let Action::Reply(error) = protocol.on_text(now, r#"{"type":"x","id":"7"}"#) else { panic!("limited") };
        assert!(error.contains("RATE_LIMITED") && error.contains(r#""id":"7""#), "{error}");
        let ack = format!(r#"{{"type":"ack","message_id":"{message}"}}"#);
        assert_eq!(protocol.on_text(now, &ack), Action::Ack(message));
        assert_eq!(protocol.on_text(now.plus_ms(1_000), r#"{"type":"x"}"#), Action::Nothing);
    }

    #[test]
    fn unsupported_and_invalid_frames_are_answered() {
        let mut protocol = Protocol::default();
        let Action::Reply(error) = protocol.on_text(Timestamp(0), r#"{"type":"message.send","id":"a"}"#) else {
            panic!("answered")
        };
        assert!(error.contains("UNSUPPORTED_ACTION") && error.contains(r#""id":"a""#));
        let Action::Reply(error) = protocol.on_text(Timestamp(0), r#"{"type":"typing.start","payload":{}}"#) else {
            panic!("answered")
        };
        assert!(error.contains("VALIDATION_ERROR") && error.contains("conversation_id"));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,400}", at in 0u64..10_000) {
            let _ = Protocol::default().on_text(Timestamp(at), &text);
        }
    }
}
