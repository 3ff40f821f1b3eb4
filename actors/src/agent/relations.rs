//! Contact book and block list.

use schema::ids::AgentId;
use schema::rows::{BlockRow, Book, ContactRow, EventAction, EventActor, HookKind, Timestamp};
use schema::store::Write;

use super::{After, Agent};
use crate::agent::events::Signal;
use crate::api::{Notice, Refusal};
use crate::effects::{Effects, Port, Reply};

impl Agent {
    pub(super) fn put_contact(
        &mut self,
        now: Timestamp,
        port: Port,
        target: AgentId,
        handle: String,
        notes: Option<Option<String>>,
    ) {
        let known = self.contacts.get(&target).cloned();
        let (created, changed) = (known.is_none(), known.is_none() || notes.is_some());
        let mut contact = known.unwrap_or(ContactRow { agent: target, handle, notes: None, added_at: now });
        if let Some(notes) = notes {
            contact.notes = notes;
        }
        if changed {
            self.contacts.insert(target, contact.clone());
            self.enter(Book::Contacts, Write::Contact(self.row.id, contact.clone()));
        }
        self.writer.then(After::Answer(port, Ok(Reply::Contact(contact, created))));
    }

    pub(super) fn annotate(&mut self, port: Port, handle: &str, notes: Option<String>, fx: &mut Effects) {
        let Some(contact) = self.contacts.values_mut().find(|contact| contact.handle == handle) else {
            return fx.answer(port, Err(Refusal::NoRelation));
        };
        contact.notes = notes;
        let contact = contact.clone();
        self.enter(Book::Contacts, Write::Contact(self.row.id, contact.clone()));
        self.writer.then(After::Answer(port, Ok(Reply::Contact(contact, false))));
    }

    pub(super) fn remove_contact(&mut self, port: Port, handle: &str, fx: &mut Effects) {
        let Some(target) = self.contacts.values().find(|contact| contact.handle == handle).map(|row| row.agent) else {
            return fx.answer(port, Err(Refusal::NoRelation));
        };
        self.contacts.remove(&target);
        self.writer.write(Write::ContactRemove(self.row.id, target, handle.to_owned()));
        self.writer.then(After::Answer(port, Ok(Reply::Done)));
    }

    pub(super) fn block(&mut self, now: Timestamp, port: Port, target: AgentId, handle: String, fx: &mut Effects) {
        if self.blocks.contains_key(&target) {
            return fx.answer(port, Err(Refusal::AlreadyBlocked));
        }
        let block = BlockRow { agent: target, handle, blocked_at: now };
        self.put_block(now, block.clone(), fx);
        self.accuse(target, Signal::Block(now));
        self.writer.then(After::Answer(port, Ok(Reply::Block(block))));
    }

    pub(super) fn put_block(&mut self, now: Timestamp, block: BlockRow, fx: &mut Effects) {
        let (handle, at) = (block.handle.clone(), block.blocked_at);
        self.log(now, EventActor::Agent, EventAction::Blocked { handle: handle.clone() }, None);
        self.enter(Book::Blocks, Write::Block(self.row.id, block.clone()));
        self.blocks.insert(block.agent, block);
        self.call_hooks(HookKind::ContactBlocked, || Notice::Blocked { handle, at }, fx);
    }

    pub(super) fn unblock(&mut self, port: Port, handle: &str, fx: &mut Effects) {
        let Some(target) = self.blocks.values().find(|block| block.handle == handle).map(|row| row.agent) else {
            return fx.answer(port, Err(Refusal::NoRelation));
        };
        self.blocks.remove(&target);
        self.writer.write(Write::BlockRemove(self.row.id, handle.to_owned()));
        self.accuse(target, Signal::Unblock);
        self.writer.then(After::Answer(port, Ok(Reply::Done)));
    }
}
