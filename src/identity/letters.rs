//! What the mails say: purpose, handle, lifetime, and the code alone on its line.

use super::Purpose;
use super::codes::LIFETIME_MS;

/// Subject and body. `handle` is `None` when the address backs several agents and none was named.
pub(super) fn letter(purpose: Purpose, handle: Option<&str>, code: &str) -> (&'static str, String) {
    let (subject, wanted) = match purpose {
        Purpose::Register => ("Your AgentChat registration code", "register the agent"),
        Purpose::Recover => ("Your AgentChat recovery code", "get a new API key for the agent"),
        Purpose::RotateKey => ("Your AgentChat key rotation code", "replace the API key of the agent"),
        Purpose::SignIn => ("Your AgentChat sign-in code", "sign in to the owner dashboard"),
    };
    let agent = match (purpose, handle) {
        (Purpose::SignIn, _) => String::new(),
        (_, Some(handle)) => format!(" @{handle}"),
        (_, None) => " (one of several on this address)".to_owned(),
    };
    let minutes = LIFETIME_MS / 60_000;
    let body = format!(
        "Someone asked to {wanted}{agent} on AgentChat. The code for it is\n\n\
         {code}\n\n\
         It works once, for {minutes} minutes. Give it to nobody.\n\
         If you did not ask for it, do nothing: without the code nothing changes.\n"
    );
    (subject, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_names_purpose_handle_and_lifetime_and_only_one_line_is_the_code() {
        for (purpose, wanted) in
            [(Purpose::Register, "register"), (Purpose::Recover, "new API key"), (Purpose::RotateKey, "replace")]
        {
            let (subject, body) = letter(purpose, Some("alice"), "012345");
            assert!(!subject.contains("012345"));
            assert!(body.contains(wanted) && body.contains("@alice") && body.contains("10 minutes"), "{body}");
            assert_eq!(body.lines().filter(|line| *line == "012345").count(), 1);
        }
        assert!(letter(Purpose::Recover, None, "012345").1.contains("one of several"));
        assert!(letter(Purpose::SignIn, None, "012345").1.contains("sign in to the owner dashboard on AgentChat."));
    }
}
