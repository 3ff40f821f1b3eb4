//! Runs what entities ask of the store.

use std::sync::Arc;

use schema::ids::{AgentId, ConversationId, ConversationKind, MessageId, Seq};
use schema::rows::{AgentRow, Book, DeliveryState, MessageRow, ReceiptRow};
use schema::store::{PAGE_MAX, Store, StoreError};

use crate::effects::{Found, FoundUnread, LoadedAgent, LoadedConversation, Read, UnreadRange};
use crate::limits::WATCHERS_PAGE;

/// Runs one read to its end.
pub async fn run(store: &dyn Store, read: Read) -> Result<Found, StoreError> {
    Ok(match read {
        Read::Agent(id) => Found::Agent(agent(store, id).await?),
        Read::Conversation(id) => Found::Conversation(conversation(store, id).await?),
        Read::Owner(id) => Found::Owner(store.owner(id).await?.map(Box::new)),
        Read::Replay(sender, key) => {
            let message = replay(store, sender, &key).await?;
            Found::Replay(sender, key, message)
        }
        Read::AgentConversation(agent, id) => Found::AgentConversation(id, store.agent_conversation(agent, id).await?),
        Read::InboxFor(agent, session, after, through, limit) => {
            Found::InboxFor(session, store.inbox(agent, after, through, limit).await?, through, limit)
        }
        Read::Inbox(agent, after, through, limit) => Found::Inbox(store.inbox(agent, after, through, limit).await?),
        Read::Receipts(agent, messages) => Found::Receipts(receipts(store, agent, messages).await?),
        Read::Watchers(agent, after) => Found::Watchers(store.watchers(agent, after, WATCHERS_PAGE).await?),
        Read::Unread(agent, range) => Found::Unread(Box::new(unread(store, agent, range).await?)),
    })
}

async fn agent(store: &dyn Store, id: AgentId) -> Result<Option<Box<LoadedAgent>>, StoreError> {
    let Some(row) = store.agent(id).await? else {
        return Ok(None);
    };
    // Together: over a network each of them is a round trip.
    let (head, contacts, blocks, cold, reported, state) = tokio::try_join!(
        store.inbox_head(id),
        named(&row, Book::Contacts, store.contacts(id)),
        named(&row, Book::Blocks, store.blocks(id)),
        named(&row, Book::Cold, store.cold_threads(id)),
        named(&row, Book::Reports, store.reports(id)),
        named(&row, Book::State, store.agent_state(id)),
    )?;
    let reported = reported.into_iter().map(|report| report.target).collect();
    Ok(Some(Box::new(LoadedAgent { row, head, contacts, blocks, cold, reported, state })))
}

/// What is in a book, if the account names it.
async fn named<T: Default>(
    row: &AgentRow,
    book: Book,
    read: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    if row.books.has(book) { read.await } else { Ok(T::default()) }
}

async fn conversation(store: &dyn Store, id: ConversationId) -> Result<Option<Box<LoadedConversation>>, StoreError> {
    let Some(row) = store.conversation(id).await? else {
        return Ok(None);
    };
    let group = match id.kind {
        ConversationKind::Group => store.group(id).await?,
        ConversationKind::Direct => None,
    };
    let unfinished = store.messages_up(id, row.fanned_out.next(), row.last_seq, PAGE_MAX).await?;
    Ok(Some(Box::new(LoadedConversation { row, group, unfinished })))
}

async fn replay(store: &dyn Store, sender: AgentId, key: &str) -> Result<Option<Arc<MessageRow>>, StoreError> {
    let Some((conversation, seq)) = store.replay(sender, key).await? else {
        return Ok(None);
    };
    let rows = store.messages_up(conversation, seq, seq, 1).await?;
    Ok(rows.into_iter().find(|row| row.sender == sender && row.client_msg_id == key))
}

async fn receipts(
    store: &dyn Store,
    agent: AgentId,
    messages: Vec<MessageId>,
) -> Result<Vec<(MessageId, ReceiptRow)>, StoreError> {
    let mut found = Vec::with_capacity(messages.len());
    for message in messages {
        let rows = store.receipts(agent, message.conversation, message.seq, message.seq, 1).await?;
        found.extend(rows.into_iter().map(|(_, receipt)| (message, receipt)));
    }
    Ok(found)
}

async fn unread(store: &dyn Store, agent: AgentId, range: UnreadRange) -> Result<FoundUnread, StoreError> {
    let id = range.conversation;
    let view = store.agent_conversation(agent, id).await?.unwrap_or_default();
    let mut found = FoundUnread { view, ..FoundUnread::default() };
    let first = view.oldest_unread.max(view.hidden_through.next());
    // The range proper: from its start, or from the oldest unread when it starts at 0 ("everything through").
    let mut from = if range.from == Seq(0) { first } else { range.from };
    while from <= range.through {
        let page = store.receipts(agent, id, from, range.through, PAGE_MAX).await?;
        let Some((last, _)) = page.last() else { break };
        from = last.next();
        for (seq, receipt) in page {
            if let Some(message) = store.messages_up(id, seq, seq, 1).await?.pop().filter(|row| row.sender != agent) {
                found.rows.push((seq, message.sender, receipt));
            }
        }
    }
    if view.unread > 0 {
        bounds_left(store, agent, range, first, &mut found).await?;
    }
    Ok(found)
}

/// Finds the unread bounds outside the range. Ends early when only the lower bound can have moved.
async fn bounds_left(
    store: &dyn Store,
    agent: AgentId,
    range: UnreadRange,
    first: Seq,
    found: &mut FoundUnread,
) -> Result<(), StoreError> {
    let outside = |seq: Seq| seq < range.from || seq > range.through;
    let newest = found.view.newest_unread;
    let mut from = first;
    while from <= newest {
        let page = store.receipts(agent, range.conversation, from, newest, PAGE_MAX).await?;
        let Some((last, _)) = page.last() else { break };
        from = last.next();
        for (seq, receipt) in page {
            if receipt.state < DeliveryState::Read && !receipt.hidden && outside(seq) {
                found.oldest_left.get_or_insert(seq);
                found.newest_left = Some(seq);
            }
        }
        if found.oldest_left.is_some() && outside(newest) {
            found.newest_left = Some(newest);
            break;
        }
    }
    Ok(())
}
