//! The conversation list of one agent.
//!
//! L1  Newest activity first, ties by id, hidden ones left out.
//! L2  What is shown of the last message is what the caller may see of it.

use std::sync::Arc;

use actors::api::ConversationView;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use schema::ids::{AgentId, ConversationId, ConversationKind};
use schema::rows::{AgentConversationRow, AgentRow, ConversationRow, GroupRow, MuteRow, MuteTarget};
use schema::store::Store;
use serde_json::Value;

use super::history::{Cursor, Seen, page};
use super::{READS_AT_ONCE, accounts};
use crate::app::App;
use crate::wire::conversation::{list_item, participant_value};
use crate::wire::error::ApiError;

/// A conversation with the caller's view of it.
pub struct Listed {
    /// Its head.
    pub row: ConversationRow,
    group: Option<Arc<GroupRow>>,
    own: AgentConversationRow,
}

impl Listed {
    /// What the caller may see of its log; `None` if it takes no part.
    pub fn view(&self, caller: AgentId) -> Option<ConversationView> {
        let members = self.group.as_ref().map_or(&self.row.members, |group| &group.members);
        let member = members.iter().find(|member| member.agent == caller && member.is_active())?;
        Some(ConversationView { row: self.row.clone(), group: self.group.clone(), from: member.joined_at_seq })
    }
}

/// All conversations that the caller's list shows, newest first (L1).
pub async fn visible(app: &App, caller: AgentId) -> Result<Vec<Listed>, ApiError> {
    let store = app.store();
    let known = store.agent_conversations(caller).await?;
    let shown = known.into_iter().filter(|(_, own)| !own.hidden);
    let mut listed: Vec<Listed> = stream::iter(shown)
        .map(|(id, own)| listed(store, caller, id, own))
        .buffer_unordered(READS_AT_ONCE)
        .try_filter_map(|listed| async move { Ok(listed) })
        .try_collect()
        .await?;
    listed.sort_by(|a, b| {
        let newest_first = b.row.last_message_at.cmp(&a.row.last_message_at);
        newest_first.then_with(|| a.row.id.to_string().cmp(&b.row.id.to_string()))
    });
    Ok(listed)
}

/// Rows `offset..offset + limit` of the list.
pub async fn list(app: &App, caller: AgentId, limit: usize, offset: usize) -> Result<Vec<Value>, ApiError> {
    let store = app.store();
    let page: Vec<Listed> = visible(app, caller).await?.into_iter().skip(offset).take(limit).collect();
    let peers = page.iter().filter_map(|listed| counterparty(&listed.row, caller)).map(|(agent, _)| agent);
    let accounts = accounts(store, peers).await?;
    let mutes = app.domain.mutes(caller).await?;
    stream::iter(page)
        .map(|listed| {
            let account = counterparty(&listed.row, caller).and_then(|(agent, _)| accounts.get(&agent).cloned());
            item(app, listed, caller, account, &mutes)
        })
        .buffered(READS_AT_ONCE)
        .try_collect()
        .await
}

/// `None` for a group that the caller has left or that has ended.
async fn listed(
    store: &Arc<dyn Store>,
    caller: AgentId,
    id: ConversationId,
    own: AgentConversationRow,
) -> Result<Option<Listed>, ApiError> {
    let group = match id.kind {
        ConversationKind::Direct => None,
        ConversationKind::Group => {
            let group = store.group(id).await?.filter(|group| group.deleted.is_none());
            match group.filter(|group| group.member(caller).is_some()) {
                Some(group) => Some(Arc::new(group)),
                None => return Ok(None),
            }
        }
    };
    Ok(store.conversation(id).await?.map(|row| Listed { row, group, own }))
}

/// The conversation is muted, or being direct its other member is.
fn muted(mutes: &[MuteRow], row: &ConversationRow, caller: AgentId) -> bool {
    mutes.iter().any(|mute| match &mute.target {
        MuteTarget::Conversation(id) => *id == row.id,
        MuteTarget::Agent(agent, _) => counterparty(row, caller).is_some_and(|(peer, _)| peer == *agent),
    })
}

async fn item(
    app: &App,
    listed: Listed,
    caller: AgentId,
    account: Option<Arc<AgentRow>>,
    mutes: &[MuteRow],
) -> Result<Value, ApiError> {
    let (row, group) = (&listed.row, listed.group.as_deref());
    let peer = counterparty(row, caller);
    let participants = peer.map(|(_, handle)| participant_value(handle, account.as_deref(), &app.urls));
    let last = last_visible(app.store().as_ref(), &listed, caller).await?;
    let last = last.as_ref().map(|seen| (seen.message.as_ref(), seen.message.sender == caller));
    let muted = muted(mutes, row, caller);
    Ok(list_item(row, group, &listed.own, participants.into_iter().collect(), last, muted, &app.urls))
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
    let Some(view) = listed.view(caller) else { return Ok(None) };
    Ok(page(store, &view, caller, Cursor::Newest, 1).await?.pop())
}
