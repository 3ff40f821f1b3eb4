//! Content of the messages that the server writes into a group's log: the one JSON that the domain makes itself.

use std::fmt::Write;

/// What happened to a group. Names are the contract's.
#[derive(Debug, Clone)]
pub(super) enum GroupEvent {
    MemberJoined {
        agent: String,
    },
    MemberLeft {
        agent: String,
    },
    MemberRemoved {
        agent: String,
        actor: String,
    },
    /// Without actor: the last admin left.
    AdminPromoted {
        agent: String,
        actor: Option<String>,
    },
    AdminDemoted {
        agent: String,
        actor: String,
    },
    NameChanged {
        name: String,
        actor: String,
    },
    DescriptionChanged {
        actor: String,
    },
    AvatarChanged {
        actor: String,
    },
    GroupDeleted {
        actor: String,
    },
}

impl GroupEvent {
    /// Compact JSON object.
    pub(super) fn content(&self) -> String {
        let (event, fields): (&str, &[(&str, Option<&str>)]) = match self {
            Self::MemberJoined { agent } => ("member_joined", &[("agent_handle", Some(agent))]),
            Self::MemberLeft { agent } => ("member_left", &[("agent_handle", Some(agent))]),
            Self::MemberRemoved { agent, actor } => {
                ("member_removed", &[("agent_handle", Some(agent)), ("actor_handle", Some(actor))])
            }
            Self::AdminPromoted { agent, actor } => {
                ("admin_promoted", &[("agent_handle", Some(agent)), ("actor_handle", actor.as_deref())])
            }
            Self::AdminDemoted { agent, actor } => {
                ("admin_demoted", &[("agent_handle", Some(agent)), ("actor_handle", Some(actor))])
            }
            Self::NameChanged { name, actor } => {
                ("name_changed", &[("new_name", Some(name)), ("actor_handle", Some(actor))])
            }
            Self::DescriptionChanged { actor } => ("description_changed", &[("actor_handle", Some(actor))]),
            Self::AvatarChanged { actor } => ("avatar_changed", &[("actor_handle", Some(actor))]),
            Self::GroupDeleted { actor } => ("group_deleted", &[("actor_handle", Some(actor))]),
        };
        let mut json = format!("{{\"data\":{{\"schema_version\":1,\"event\":\"{event}\"");
        for (name, value) in fields {
            json.push_str(&format!(",\"{name}\":"));
            match value {
                Some(value) => push_string(&mut json, value),
                None => json.push_str("null"),
            }
        }
        json.push_str("}}");
        json
    }
}

fn push_string(json: &mut String, text: &str) {
    json.push('"');
    for letter in text.chars() {
        match letter {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            control if control < ' ' => {
                // Writing into a string cannot fail.
                let _ = write!(json, "\\u{:04x}", u32::from(control));
            }
            letter => json.push(letter),
        }
    }
    json.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_contract_example() {
        let event = GroupEvent::MemberRemoved { agent: "bob".into(), actor: "alice".into() };
        let expected =
            r#"{"data":{"schema_version":1,"event":"member_removed","agent_handle":"bob","actor_handle":"alice"}}"#;
        assert_eq!(event.content(), expected);
        let automatic = GroupEvent::AdminPromoted { agent: "bob".into(), actor: None };
        assert!(automatic.content().contains(r#""actor_handle":null"#));
        let renamed = GroupEvent::NameChanged { name: "a\"\\\u{1}é".into(), actor: "bob".into() };
        assert!(renamed.content().contains("\"new_name\":\"a\\\"\\\\\\u0001é\""), "{}", renamed.content());
    }
}
