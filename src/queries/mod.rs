//! Bulk reads for REST: bounds come from the owning entity, rows come from the store, nothing is written.
//!
//! Q1  A row is shown only if its owner has committed it: every range ends at a bound that an entity gave.
//! Q2  Full pages: what a caller may not see is skipped and replaced, so a short page means the end (contract S8).

pub mod context;
pub mod conversations;
pub mod history;
pub mod inbox;

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt, TryStreamExt};
use schema::ids::AgentId;
use schema::rows::{AgentRow, AgentStatus};
use schema::store::{Store, StoreError};

use crate::app::App;
use crate::wire::error::ApiError;

/// Point reads of one request that are under way together.
const READS_AT_ONCE: usize = 16;

/// The accounts of `agents`, each read once. Unknown ones are absent.
pub async fn accounts(
    store: &Arc<dyn Store>,
    agents: impl IntoIterator<Item = AgentId>,
) -> Result<HashMap<AgentId, Arc<AgentRow>>, StoreError> {
    let mut unique: Vec<AgentId> = agents.into_iter().collect();
    unique.sort_unstable();
    unique.dedup();
    stream::iter(unique)
        .map(|agent| async move { Ok((agent, store.agent(agent).await?)) })
        .buffer_unordered(READS_AT_ONCE)
        .try_filter_map(|(agent, row)| async move { Ok(row.map(|row| (agent, Arc::new(row)))) })
        .try_collect()
        .await
}

/// The account that a handle as sent names, unless it is deleted.
pub async fn live_account(app: &App, handle: &str) -> Result<AgentRow, ApiError> {
    let agent = app.handles.named(handle).await?.ok_or(ApiError::AgentNotFound)?;
    let row = app.store().agent(agent).await?.filter(|row| row.status != AgentStatus::Deleted);
    row.ok_or(ApiError::AgentNotFound)
}
