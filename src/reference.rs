//! docs/configuration.md, made of the same definitions that read the settings, so that it cannot drift.
//!
//! F1  Every flag is in it with its environment variable, its key in the file, its default and its help.
//! F2  Every other key of the file is in it with its default; what it means is said in [`MEANINGS`].

use std::fmt::Write;

use clap::{Args, Command};
use serde_json::Value;

use crate::config::{Config, Flags};

/// Keys that only the file has.
const MEANINGS: [(&str, &str); 7] = [
    (
        "store_cache_mib",
        "Memory that the embedded store keeps of its tables, in MiB; it fills with use, and what it lacks is read from files",
    ),
    (
        "passivate_after_s",
        "Seconds after which an agent or a conversation that nobody uses leaves memory; its next use reads it from the \
         store. Longer is faster and takes about 1 KiB for each that was used within that time; 60 to 86400",
    ),
    ("cors_origins", "Origins whose pages may call the API from a browser; `*` is any"),
    ("reserved_handles", "Handles that nobody may register, beside the published list"),
    ("webhooks_allow_private", "Webhooks may go to plain HTTP and to private addresses; for tests"),
    ("directory_requires_auth", "The directory answers agents only"),
    (
        "group_add_mode",
        "`contacts_auto_join`: whoever has the inviter in its book joins at once; `consent`: everybody is asked",
    ),
];

/// Single limits, under `[numbers]`.
const NUMBERS: [(&str, &str); 28] = [
    ("requests_per_second", "Authenticated requests, per agent or owner and second"),
    ("sends_per_second", "Messages, per agent and second"),
    ("cold_threads", "Strangers written to without an answer yet, per agent in 24 h"),
    ("backlog_warn", "Waiting messages from which senders are warned"),
    ("backlog_max", "Waiting messages at which senders are refused"),
    ("register_per_hour", "Registrations, per IP and hour"),
    ("verify_per_10_minutes", "Codes tried, per IP in 10 minutes"),
    ("recover_per_hour", "Recoveries, per IP and hour"),
    ("rotate_per_hour", "Key rotations, per agent and hour"),
    ("profiles_per_minute", "Public profiles, per IP and minute"),
    ("group_sends_per_second", "Messages per group and second, by all members together"),
    ("invites_per_day", "Invitations to groups, per agent in 24 h"),
    ("group_changes_per_second", "Changes of groups, per agent and second"),
    ("directory_per_minute", "Directory searches, per agent and minute"),
    ("directory_per_day", "Directory searches, per agent in 24 h"),
    ("directory_anonymous_per_minute", "Directory searches without a key, per IP and minute"),
    ("avatars_per_minute", "Avatars, per agent or group and minute"),
    ("uploads_per_minute", "Announced uploads, per agent and minute"),
    ("webhooks_per_minute", "New webhooks, per agent and minute"),
    ("otp_cooldown_seconds", "Seconds between two codes to one address"),
    ("otp_per_hour", "Codes to one address, per hour"),
    ("email_live", "Agents that one address may back at a time"),
    ("email_lifetime", "Agents that one address may ever register"),
    ("sign_in_per_hour", "Sign-in codes of owners, per IP and hour"),
    ("sign_in_codes_per_hour", "Sign-in codes to one address, per hour"),
    ("sign_in_verify_per_10_minutes", "Sign-in codes tried, per IP in 10 minutes"),
    ("refresh_per_minute", "Renewals of a dashboard session, per IP and minute"),
    ("claims_per_10_minutes", "Claims of agents, per IP in 10 minutes"),
];

const HEAD: &str = "\
# Configuration

<!-- Made by `agentchat config-reference`; a test compares it with the code. Change the code, then run
`cargo run --quiet -- config-reference > docs/configuration.md`. -->

A setting comes from a flag, else from an environment variable, else from the TOML file that `--config` (or
`AGENTCHAT_CONFIG`) names, else it has its default. A key of the file that does not exist is an error, so a typing mistake
is not a silent default. `agentchat doctor` reads the same settings and says what will not work.

Keys in the file are in snake case. A small file:

```toml
listen = \"127.0.0.1:8080\"
public_url = \"https://chat.example.com\"
smtp_url = \"smtps://user:password@mail.example.com\"
mail_from = \"agentchat@example.com\"
client_ip_header = \"x-forwarded-for\"

[numbers]
register_per_hour = 20
```

## Settings

| Environment | Flag | In the file | Default | Meaning |
|---|---|---|---|---|
";

const OTHERS: &str = "
`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and the other usual `AWS_*` variables are read for `s3://` objects when the
setting itself names no credentials.

Secrets (`AGENTCHAT_CLUSTER_COOKIE`, `AGENTCHAT_OPERATOR_TOKEN`, the passwords in `AGENTCHAT_SMTP_URL`, `AGENTCHAT_STORE` and
`AGENTCHAT_OBJECTS`) belong into the environment or a file that only the server's user can read: flags are visible to
every user of the machine.

## Only in the file

| Key | Default | Meaning |
|---|---|---|
";

const LIMITS: &str = "
## Limits

The published limits are the defaults. Single ones are changed under `[numbers]` in the file; a rate of `0` is lifted.
`AGENTCHAT_LIMITS=open` lifts all rates and cooldowns, and leaves the rest.

| Key | Default | What it limits |
|---|---|---|
";

/// The document.
pub fn configuration() -> String {
    let mut text = HEAD.to_owned();
    for flag in flags() {
        let _ = writeln!(text, "{}", flag.row()); // a `String` takes everything
    }
    text.push_str(OTHERS);
    let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
    table(&mut text, &MEANINGS, &defaults);
    text.push_str(LIMITS);
    table(&mut text, &NUMBERS, &defaults["numbers"]);
    text
}

fn table(text: &mut String, meanings: &[(&str, &str)], defaults: &Value) {
    for (key, meaning) in meanings {
        let _ = writeln!(text, "| `{key}` | `{}` | {} |", defaults[key], cell(meaning));
    }
}

/// One setting as the command line defines it.
struct Flag {
    environment: String,
    flag: String,
    key: String,
    default: String,
    meaning: String,
}

impl Flag {
    fn row(&self) -> String {
        let default = if self.default.is_empty() { "unset".to_owned() } else { format!("`{}`", self.default) };
        // The file cannot name itself.
        let key = if self.key == "config" { "".to_owned() } else { format!("`{}`", self.key) };
        format!("| `{}` | `{}` | {key} | {default} | {} |", self.environment, self.flag, cell(&self.meaning))
    }
}

/// A text inside a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn flags() -> Vec<Flag> {
    let command = Flags::augment_args(Command::new("agentchat"));
    let flag = |arg: &clap::Arg| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let (meaning, default) = help
            .rsplit_once(" [default: ")
            .map_or((help.as_str(), ""), |(meaning, default)| (meaning, default.trim_end_matches(']')));
        Some(Flag {
            environment: arg.get_env()?.to_string_lossy().into_owned(),
            flag: format!("--{} {}", arg.get_long()?, arg.get_value_names()?.first()?),
            key: arg.get_id().to_string(),
            default: default.to_owned(),
            meaning: meaning.to_owned(),
        })
    };
    command.get_arguments().filter_map(flag).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_is_what_the_code_says() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
        let written = std::fs::read_to_string(path).unwrap();
        let how = "run: cargo run --quiet -- config-reference > docs/configuration.md";
        assert!(written == configuration(), "docs/configuration.md is not what the code says; {how}");
    }

    #[test]
    fn every_key_is_explained_once() {
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let defaults = serde_json::to_value(Config::default()).unwrap();
        let flags: BTreeSet<String> = flags().into_iter().map(|flag| flag.key).filter(|key| key != "config").collect();
        let named = |table: &[(&str, &str)]| table.iter().map(|(key, _)| (*key).to_owned()).collect::<BTreeSet<_>>();
        let numbers = BTreeSet::from(["numbers".to_owned()]);
        let explained: BTreeSet<String> = [flags, named(&MEANINGS), numbers].into_iter().flatten().collect();
        assert_eq!(explained, keys(&defaults), "F1, F2");
        assert_eq!(named(&NUMBERS), keys(&defaults["numbers"]), "F2");
    }

    #[test]
    fn every_flag_has_an_environment_variable_and_says_what_it_is_for() {
        let command = Flags::augment_args(Command::new("agentchat"));
        assert_eq!(flags().len(), command.get_arguments().count(), "F1");
        for flag in flags() {
            assert_eq!(flag.environment, format!("AGENTCHAT_{}", flag.key.to_uppercase()));
            assert!(flag.meaning.len() > 10, "{}", flag.flag);
        }
    }
}
