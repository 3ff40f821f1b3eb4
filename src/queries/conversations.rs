//! The conversation list of one agent.
//!
//! L1  Newest activity first, ties by id, hidden ones left out.
//! L2  What is shown of the last message is what the caller may see of it.

use std::sync::Arc;

use actors::api::ConversationView;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use schema::ids::{AgentId, ConversationId};
use schema::rows::{AgentConversationRow, AgentRow, ConversationRow};
use schema::store::Store;
use serde_json::Value;

use super::history::{Cursor, Seen, page};
use super::{READS_AT_ONCE, accounts};
use crate::wire::conversation::{list_item, participant_value};
use crate::wire::error::ApiError;

/// A conversation with the caller's view of it.
struct Listed {
    row: ConversationRow,
    own: AgentConversationRow,
}

/// Rows `offset..offset + limit` of the list.
pub async fn list(
    store: &Arc<dyn Store>,
    caller: AgentId,
    limit: usize,
    offset: usize,
) -> Result<Vec<Value>, ApiError> {
    let known = store.agent_conversations(caller).await?;
    let shown = known.into_iter().filter(|(_, own)| !own.hidden);
    let mut listed: Vec<Listed> = stream::iter(shown)
        .map(|(id, own)| async move {
            let row = store.conversation(id).await?;
            Ok::<_, ApiError>(row.map(|row| Listed { row, own }))
        })
        .buffer_unordered(READS_AT_ONCE)
        .try_filter_map(|listed| async move { Ok(listed) })
        .try_collect()
        .await?;
    listed.sort_by(|a, b| {
        let newest_first = b.row.last_message_at.cmp(&a.row.last_message_at);
        newest_first.then_with(|| a.row.id.to_string().cmp(&b.row.id.to_string()))
    });
    let page: Vec<Listed> = listed.into_iter().skip(offset).take(limit).collect();
    let peers = page.iter().filter_map(|listed| counterparty(&listed.row, caller)).map(|(agent, _)| agent);
    let accounts = accounts(store, peers).await?;
    stream::iter(page)
        .map(|listed| {
            let account = counterparty(&listed.row, caller).and_then(|(agent, _)| accounts.get(&agent).cloned());
            item(store.as_ref(), listed, caller, account)
        })
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await
}

async fn item(
    store: &dyn Store,
    listed: Listed,
    caller: AgentId,
    account: Option<Arc<AgentRow>>,
) -> Result<Value, ApiError> {
    let peer = counterparty(&listed.row, caller);
    let participants = peer.into_iter().map(|(_, handle)| participant_value(handle, account.as_deref())).collect();
    let last = last_visible(store, &listed, caller).await?;
    let last = last.as_ref().map(|seen| (seen.message.as_ref(), seen.message.sender == caller));
    Ok(list_item(&listed.row, &listed.own, participants, last))
}

/// The other member of a direct conversation.
pub fn counterparty(row: &ConversationRow, caller: AgentId) -> Option<(AgentId, &str)> {
    let peer = row.members.iter().find(|member| member.agent != caller)?;
    Some((peer.agent, &peer.handle))
}

/// The caller's view of one conversation; default when it never took part in a message.
pub async fn own_view(
    store: &dyn Store,
    caller: AgentId,
    id: ConversationId,
) -> Result<AgentConversationRow, ApiError> {
    Ok(store.agent_conversation(caller, id).await?.unwrap_or_default())
}

async fn last_visible(store: &dyn Store, listed: &Listed, caller: AgentId) -> Result<Option<Seen>, ApiError> {
    let member = listed.row.members.iter().find(|member| member.agent == caller);
    let Some(from) = member.map(|member| member.joined_at_seq) else { return Ok(None) };
    let view = ConversationView { row: listed.row.clone(), from };
    Ok(page(store, &view, caller, Cursor::Newest, 1).await?.pop())
}
