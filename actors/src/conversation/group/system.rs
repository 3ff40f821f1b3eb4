//! Content of the messages that the server writes into a group's log: the one JSON that the domain makes itself.

use serde::Serialize;

/// What happened to a group. Names are the contract's.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum GroupEvent {
    MemberJoined {
        agent_handle: String,
    },
    MemberLeft {
        agent_handle: String,
    },
    MemberRemoved {
        agent_handle: String,
        actor_handle: String,
    },
    /// Without actor: the last admin left.
    AdminPromoted {
        agent_handle: String,
        actor_handle: Option<String>,
    },
    AdminDemoted {
        agent_handle: String,
        actor_handle: String,
    },
    NameChanged {
        new_name: String,
        actor_handle: String,
    },
    DescriptionChanged {
        actor_handle: String,
    },
    AvatarChanged {
        actor_handle: String,
    },
    GroupDeleted {
        actor_handle: String,
    },
}

#[derive(Serialize)]
struct Content<'a> {
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    schema_version: u32,
    #[serde(flatten)]
    event: &'a GroupEvent,
}

impl GroupEvent {
    /// Compact JSON object.
    pub(super) fn content(&self) -> String {
        let content = Content { data: Data { schema_version: 1, event: self } };
        // Strings and a number: nothing here can fail to encode.
        serde_json::to_string(&content).unwrap_or_else(|_| "{\"data\":{}}".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_example() {
        let event = GroupEvent::MemberRemoved { agent_handle: "bob".into(), actor_handle: "alice".into() };
        let expected =
            r#"{"data":{"schema_version":1,"event":"member_removed","agent_handle":"bob","actor_handle":"alice"}}"#;
        assert_eq!(event.content(), expected);
        let automatic = GroupEvent::AdminPromoted { agent_handle: "bob".into(), actor_handle: None };
        assert!(automatic.content().contains(r#""actor_handle":null"#));
    }
}
