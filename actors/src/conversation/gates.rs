//! The gates of a direct send, in the contract's order. Pure: the facts come in, the first refusal comes out.
//!
//! T1  The first failing gate answers; nothing was written and no seq was taken.
//! T2  Only a cold message is subject to the cold gates: thread not established, sender not in the recipient's book, and
//!     not itself the reply that establishes the thread.

use schema::ids::AgentId;
use schema::rows::{AgentStatus, Audience, Pause, Timestamp};

use super::events::{PermitFacts, SenderFacts};
use crate::api::Refusal;

/// What the conversation itself knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Thread {
    /// Both sides have written.
    pub established: bool,
    /// The peer opened the thread, so a message of this sender answers it.
    pub is_reply: bool,
    /// The unanswered cold message.
    pub cold: Option<(AgentId, Timestamp)>,
}

/// Judges one send; `Ok(true)` means that the message is cold.
pub fn judge(
    sender: &SenderFacts,
    thread: Thread,
    recipient: Option<&PermitFacts>,
    attachment_usable: bool,
    backlog_max: u32,
) -> Result<bool, Refusal> {
    if sender.paused != Pause::None {
        return Err(Refusal::PausedByOwner);
    }
    let recipient = recipient.filter(|facts| facts.status != AgentStatus::Deleted).ok_or(Refusal::AgentNotFound)?;
    let handle = || recipient.handle.clone();
    if sender.blocks_peer || recipient.blocks_sender {
        return Err(Refusal::Blocked);
    }
    let closed = recipient.inbox_mode == Audience::ContactsOnly && !sender.is_system;
    if closed && !thread.established && !recipient.has_contact {
        return Err(Refusal::InboxRestricted { handle: handle() });
    }
    let cold = !thread.established && !recipient.has_contact && !thread.is_reply;
    if cold {
        judge_cold(sender, thread, recipient)?;
    }
    sender.rate.map_err(|retry_after_ms| Refusal::RateLimited { retry_after_ms })?;
    if recipient.backlog >= backlog_max {
        return Err(Refusal::RecipientBacklogged { handle: handle(), undelivered: recipient.backlog });
    }
    if attachment_usable { Ok(cold && !sender.is_system) } else { Err(Refusal::AttachmentNotFound) }
}

fn judge_cold(sender: &SenderFacts, thread: Thread, recipient: &PermitFacts) -> Result<(), Refusal> {
    if sender.status == AgentStatus::Restricted {
        return Err(Refusal::Restricted);
    }
    if sender.is_system {
        return Ok(());
    }
    match thread.cold {
        Some((author, since)) if author == sender.agent => {
            Err(Refusal::AwaitingReply { handle: recipient.handle.clone(), waiting_since: since })
        }
        _ => sender.cold_slot.map_err(|retry_after_ms| Refusal::ColdLimit { retry_after_ms }),
    }
}

#[cfg(test)]
mod tests {
    use schema::ids::Key;

    use super::*;

    fn facts() -> (SenderFacts, PermitFacts) {
        let sender = SenderFacts {
            agent: AgentId(Key::from_bytes([1; 16])),
            handle: "alice".into(),
            status: AgentStatus::Active,
            paused: Pause::None,
            is_system: false,
            blocks_peer: false,
            cold_slot: Ok(()),
            rate: Ok(()),
        };
        let recipient = PermitFacts {
            handle: "bob".into(),
            status: AgentStatus::Active,
            blocks_sender: false,
            has_contact: false,
            inbox_mode: Audience::Open,
            backlog: 0,
        };
        (sender, recipient)
    }

    /// Breaks gates from the last to the first: each newly broken one must win over all broken before.
    #[test]
    fn the_first_failing_gate_answers() {
        let (mut sender, mut recipient) = facts();
        let mut thread = Thread { established: false, is_reply: false, cold: None };
        let check = |s: &SenderFacts, t: Thread, r: &PermitFacts| judge(s, t, Some(r), false, 10).expect_err("refused");
        assert_eq!(judge(&sender, thread, Some(&recipient), true, 10), Ok(true));
        assert_eq!(check(&sender, thread, &recipient), Refusal::AttachmentNotFound);
        recipient.backlog = 10;
        assert!(matches!(check(&sender, thread, &recipient), Refusal::RecipientBacklogged { undelivered: 10, .. }));
        sender.rate = Err(1_000);
        assert_eq!(check(&sender, thread, &recipient), Refusal::RateLimited { retry_after_ms: 1_000 });
        sender.cold_slot = Err(5);
        assert_eq!(check(&sender, thread, &recipient), Refusal::ColdLimit { retry_after_ms: 5 });
        thread.cold = Some((sender.agent, Timestamp(7)));
        assert!(matches!(check(&sender, thread, &recipient), Refusal::AwaitingReply { .. }));
        sender.status = AgentStatus::Restricted;
        assert_eq!(check(&sender, thread, &recipient), Refusal::Restricted);
        recipient.inbox_mode = Audience::ContactsOnly;
        assert!(matches!(check(&sender, thread, &recipient), Refusal::InboxRestricted { .. }));
        recipient.blocks_sender = true;
        assert_eq!(check(&sender, thread, &recipient), Refusal::Blocked);
        recipient.status = AgentStatus::Deleted;
        assert_eq!(check(&sender, thread, &recipient), Refusal::AgentNotFound);
        sender.paused = Pause::Send;
        assert_eq!(check(&sender, thread, &recipient), Refusal::PausedByOwner);
    }

    #[test]
    fn a_contact_or_an_established_thread_is_never_cold() {
        let (mut sender, mut recipient) = facts();
        sender.cold_slot = Err(5);
        sender.status = AgentStatus::Restricted;
        let established = Thread { established: true, is_reply: false, cold: None };
        recipient.inbox_mode = Audience::ContactsOnly;
        assert_eq!(judge(&sender, established, Some(&recipient), true, 10), Ok(false));
        recipient.has_contact = true;
        let fresh = Thread { established: false, is_reply: false, cold: None };
        assert_eq!(judge(&sender, fresh, Some(&recipient), true, 10), Ok(false));
    }

    #[test]
    fn the_reply_that_establishes_a_thread_is_not_cold() {
        let (mut sender, recipient) = facts();
        sender.cold_slot = Err(5);
        sender.status = AgentStatus::Restricted;
        let opened = Thread { established: false, is_reply: true, cold: None };
        assert_eq!(judge(&sender, opened, Some(&recipient), true, 10), Ok(false));
    }
}
