//! Pages of one agent's waiting deliveries.
//!
//! I1  Rows end at the inbox's released position: nothing appears later below what was already served (contract S7).
//! I2  A filter by conversation still fills the page (contract S8).

use actors::api::InboxView;
use schema::ids::{AgentId, ConversationId, Pos};
use schema::rows::InboxRow;
use schema::store::{PAGE_MAX, Store, StoreError};

/// Rows strictly after `after`, oldest first.
pub async fn page(
    store: &dyn Store,
    agent: AgentId,
    view: InboxView,
    mut after: Pos,
    only: Option<ConversationId>,
    limit: usize,
) -> Result<Vec<InboxRow>, StoreError> {
    let mut rows = Vec::new();
    after = after.max(view.from);
    while rows.len() < limit && after < view.through {
        let wanted = if only.is_some() { PAGE_MAX } else { limit - rows.len() };
        let page = store.inbox(agent, after, view.through, wanted).await?;
        let Some(last) = page.last() else { break };
        after = last.pos;
        let exhausted = page.len() < wanted;
        rows.extend(page.into_iter().filter(|row| only.is_none_or(|id| row.message.conversation == id)));
        if exhausted {
            break;
        }
    }
    rows.truncate(limit);
    Ok(rows)
}
