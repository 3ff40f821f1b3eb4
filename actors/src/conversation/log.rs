//! Appending: seq, batch, outcome. Direct and group conversations share it.

use std::sync::Arc;

use schema::ids::Seq;
use schema::rows::{GroupRow, MessageRow, MessageType, Timestamp};
use schema::store::{StoreError, Write};

use super::fanout::{FanOut, settle};
use super::{Conversation, Head};
use crate::api::Refusal;
use crate::effects::{Effects, Event, Port, Reply, Stored};
use crate::limits::BATCH_RETRY_MS;

/// What the next batch will hold.
#[derive(Debug, Default)]
pub(super) struct NextBatch {
    pub(super) messages: Vec<FanOut>,
    /// Rows beside the log: invitations, uses of attachments.
    pub(super) rows: Vec<Write>,
    /// The group row changed.
    pub(super) group: bool,
    /// The head has to be stored, although no message was appended.
    pub(super) head: bool,
    /// To be told and answered once it is durable.
    pub(super) tells: Vec<Event>,
    pub(super) answers: Vec<(Port, Reply)>,
}

impl NextBatch {
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.rows.is_empty() && !self.group && !self.head
    }
}

/// One batch on its way to the store.
#[derive(Debug)]
pub(super) struct InFlight {
    writes: Vec<Write>,
    /// What is committed once it is applied.
    head: Option<Head>,
    pub(super) messages: Vec<FanOut>,
    tells: Vec<Event>,
    answers: Vec<(Port, Reply)>,
    /// To be submitted again.
    pub(super) retry: bool,
    /// Some attempt had an unknown outcome, so no later refusal can prove that the batch was not applied (L6).
    maybe_applied: bool,
}

impl InFlight {
    pub(super) fn again(&mut self) -> Option<Vec<Write>> {
        std::mem::take(&mut self.retry).then(|| self.writes.clone())
    }
}

/// A message without its place.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) sender: (schema::ids::AgentId, String),
    /// `None`: made of the place, for messages that the server writes.
    pub(super) client_msg_id: Option<String>,
    pub(super) kind: MessageType,
    pub(super) content: String,
    pub(super) metadata: String,
    pub(super) mentions: Vec<String>,
}

impl Conversation {
    /// Gives a message its place and puts it into the next batch (L1).
    pub(super) fn append(&mut self, body: Body, now: Timestamp) -> Option<Seq> {
        let id = self.id;
        let row = &mut self.assigned.as_mut()?.row;
        // Time in a log never runs backwards, whatever the clock does.
        let created_at = now.max(row.last_message_at);
        row.last_seq = row.last_seq.next();
        row.last_message_at = created_at;
        let seq = row.last_seq;
        let client_msg_id = body.client_msg_id.unwrap_or_else(|| format!("sys_{}{}", id.key.as_str(), seq.0));
        let message = Arc::new(MessageRow {
            conversation: id,
            seq,
            sender: body.sender.0,
            sender_handle: body.sender.1,
            client_msg_id,
            kind: body.kind,
            content: body.content,
            metadata: body.metadata,
            mentions: body.mentions,
            created_at,
        });
        self.next.messages.push(FanOut::new(message));
        Some(seq)
    }

    /// Starts the next batch unless one is in flight (E1).
    pub(super) fn commit_next(&mut self, fx: &mut Effects) {
        if self.in_flight.is_some() || self.next.is_empty() {
            return;
        }
        let mut next = std::mem::take(&mut self.next);
        let mut writes: Vec<Write> =
            next.messages.iter().map(|fan_out| Write::Message(Arc::clone(&fan_out.message))).collect();
        writes.append(&mut next.rows);
        if let Some(head) = &mut self.assigned {
            head.row.fanned_out = self.fanned_out;
            writes.push(Write::Conversation(Box::new(head.row.clone())));
            if let Some(group) = head.group.as_mut().filter(|_| next.group) {
                forget_gone(group, self.fanned_out);
                writes.push(Write::Group(Box::new(GroupRow::clone(group))));
            }
        }
        fx.writes = Some(writes.clone());
        self.in_flight = Some(InFlight {
            writes,
            head: self.assigned.clone(),
            messages: next.messages,
            tells: next.tells,
            answers: next.answers,
            retry: false,
            maybe_applied: false,
        });
    }

    pub(super) fn stored(&mut self, now: Timestamp, outcome: Stored, fx: &mut Effects) {
        match outcome {
            Ok(()) => {
                let Some(batch) = self.in_flight.take() else { return };
                self.committed = batch.head;
                fx.tells.extend(batch.tells);
                fx.replies.extend(batch.answers.into_iter().map(|(port, reply)| (port, Ok(reply))));
                for message in batch.messages {
                    self.begin_fan_out(message, fx);
                }
                self.commit_next(fx);
            }
            // Certainly not applied: everything assigned since is given back (L1).
            Err(StoreError::Unavailable(_)) if !self.in_flight.as_ref().is_some_and(|batch| batch.maybe_applied) => {
                self.give_back(fx);
            }
            // Unknown outcome: only the same batch again can make it known (L6, W4).
            Err(_) => {
                if let Some(batch) = &mut self.in_flight {
                    (batch.retry, batch.maybe_applied) = (true, true);
                }
                fx.wake(now.plus_ms(BATCH_RETRY_MS));
            }
        }
    }

    fn give_back(&mut self, fx: &mut Effects) {
        let next = std::mem::take(&mut self.next);
        let (messages, answers) =
            self.in_flight.take().map(|batch| (batch.messages, batch.answers)).unwrap_or_default();
        for mut fan_out in messages.into_iter().chain(next.messages) {
            for (port, _) in fan_out.answers.drain(..) {
                fx.answer(port, Err(Refusal::Unavailable));
            }
            let message = fan_out.message;
            if message.kind != MessageType::System {
                settle(message.sender, message.client_msg_id.clone(), Err(Refusal::Unavailable), fx);
            }
        }
        for (port, _) in answers.into_iter().chain(next.answers) {
            fx.answer(port, Err(Refusal::Unavailable));
        }
        self.assigned.clone_from(&self.committed);
    }
}

/// Drops those that left and whose last message is delivered (M1). A group that ended keeps its members.
fn forget_gone(group: &mut Arc<GroupRow>, fanned_out: Seq) {
    if group.members.iter().any(|member| member.left_at_seq.is_some_and(|left| left <= fanned_out)) {
        Arc::make_mut(group).members.retain(|member| member.left_at_seq.is_none_or(|left| left > fanned_out));
    }
}
