//! Pages of one conversation's log as one participant sees it.
//!
//! H1  Visible is `from <= seq <= last_seq` of the view, minus what the caller hid.
//! H2  A page is `min(limit, available)` visible rows, whatever was hidden in between.
//! H3  The state beside a received message is the caller's own; beside an own message it is the recipient's, in a
//!     group that of the last recipient.

use std::collections::HashMap;
use std::sync::Arc;

use actors::api::ConversationView;
use schema::ids::{AgentId, ConversationId, MessageId, Pos, Seq};
use schema::rows::{MessageRow, ReceiptRow, Timestamp};
use schema::store::{PAGE_MAX, Store, StoreError};

use crate::app::App;
use crate::wire::error::ApiError;
use crate::wire::message::MessageState;

/// Where a page starts and which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// The newest rows, newest first.
    Newest,
    /// `seq < N`, newest first.
    Before(Seq),
    /// `seq > N`, oldest first.
    After(Seq),
    /// `seq <=` this message's, newest first.
    EndingAt(MessageId),
}

/// One row of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The message.
    pub message: Arc<MessageRow>,
    /// How far it came (H3).
    pub state: MessageState,
    /// Its place in the caller's inbox; `None` for own messages.
    pub pos: Option<Pos>,
}

/// What `caller` may see of a conversation, or 404.
pub async fn view(app: &App, id: ConversationId, caller: AgentId) -> Result<ConversationView, ApiError> {
    Ok(app.domain.conversation(id, caller).await?)
}

/// The same for the conversation of one message: whoever may not see it learns nothing of the message.
pub async fn view_around(app: &App, message: MessageId, caller: AgentId) -> Result<ConversationView, ApiError> {
    view(app, message.conversation, caller).await.map_err(|error| match error {
        ApiError::ConversationNotFound | ApiError::GroupDeleted(_) => ApiError::MessageNotFound,
        error => error,
    })
}

/// One page of history.
pub async fn page(
    store: &dyn Store,
    view: &ConversationView,
    caller: AgentId,
    cursor: Cursor,
    limit: usize,
) -> Result<Vec<Seen>, ApiError> {
    let (first, last) = (view.from, view.row.last_seq);
    let (low, high) = match cursor {
        Cursor::Newest => (first, last),
        Cursor::Before(seq) => (first, last.min(Seq(seq.0.saturating_sub(1)))),
        Cursor::After(seq) => (first.max(Seq(seq.0.saturating_add(1))), last),
        Cursor::EndingAt(message) => {
            one(store, view, caller, message).await?;
            (first, message.seq)
        }
    };
    let upwards = matches!(cursor, Cursor::After(_));
    Ok(collect(store, view, caller, (low, high, upwards), (limit, Receipts::All)).await?)
}

/// Messages below `end`, newest first, by the rules of [`page`]; how far they came nobody asks, which in a group saves
/// a read for every member.
pub async fn messages_before(
    store: &dyn Store,
    view: &ConversationView,
    caller: AgentId,
    end: Seq,
    limit: usize,
) -> Result<Vec<Arc<MessageRow>>, StoreError> {
    let range = (view.from, view.row.last_seq.min(Seq(end.0.saturating_sub(1))), false);
    let rows = collect(store, view, caller, range, (limit, Receipts::Own)).await?;
    Ok(rows.into_iter().map(|seen| seen.message).collect())
}

/// One message that the caller can see, or 404.
pub async fn one(
    store: &dyn Store,
    view: &ConversationView,
    caller: AgentId,
    message: MessageId,
) -> Result<Seen, ApiError> {
    if message.conversation != view.row.id || message.seq < view.from || message.seq > view.row.last_seq {
        return Err(ApiError::MessageNotFound);
    }
    let range = (message.seq, message.seq, true);
    let rows = collect(store, view, caller, range, (1, Receipts::All)).await?;
    rows.into_iter().next().ok_or(ApiError::MessageNotFound)
}

/// Whose receipts are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receipts {
    /// The caller's, which say what it hid.
    Own,
    /// Those of everybody who got its messages, too.
    All,
}

/// Reads until the page is full or the range is exhausted (H2).
async fn collect(
    store: &dyn Store,
    view: &ConversationView,
    caller: AgentId,
    (mut low, mut high, upwards): (Seq, Seq, bool),
    (limit, receipts): (usize, Receipts),
) -> Result<Vec<Seen>, StoreError> {
    let mut seen = Vec::with_capacity(limit.min(PAGE_MAX));
    while seen.len() < limit && low <= high {
        let wanted = (limit - seen.len()).min(PAGE_MAX);
        let rows = if upwards {
            store.messages_up(view.row.id, low, high, wanted).await?
        } else {
            store.messages_down(view.row.id, low, high, wanted).await?
        };
        let (Some(one_end), Some(other_end)) = (rows.first(), rows.last()) else { break };
        let range = (one_end.seq.min(other_end.seq), one_end.seq.max(other_end.seq));
        if upwards {
            low = range.1.next();
        } else if range.0 > Seq(1) {
            high = Seq(range.0.0 - 1);
        } else {
            low = high.next(); // seq 1 was read: nothing is left
        }
        let states = States::read(store, view, caller, (&rows, receipts), range).await?;
        seen.extend(rows.into_iter().filter_map(|message| states.of(message)));
    }
    Ok(seen)
}

/// Receipts of one range: the caller's, and of its own messages those of everybody who got them.
struct States {
    caller: AgentId,
    own: HashMap<Seq, ReceiptRow>,
    others: HashMap<Seq, Vec<ReceiptRow>>,
}

impl States {
    async fn read(
        store: &dyn Store,
        view: &ConversationView,
        caller: AgentId,
        (rows, receipts): (&[Arc<MessageRow>], Receipts),
        (from, through): (Seq, Seq),
    ) -> Result<Self, StoreError> {
        let id = view.row.id;
        let own = store.receipts(caller, id, from, through, PAGE_MAX).await?.into_iter().collect();
        let mut others: HashMap<Seq, Vec<ReceiptRow>> = HashMap::new();
        if receipts == Receipts::All && rows.iter().any(|row| row.sender == caller) {
            let members = view.group.as_ref().map_or(&view.row.members, |group| &group.members);
            for member in members.iter().filter(|member| member.agent != caller) {
                for (seq, receipt) in store.receipts(member.agent, id, from, through, PAGE_MAX).await? {
                    others.entry(seq).or_default().push(receipt);
                }
            }
        }
        Ok(Self { caller, own, others })
    }

    /// The row as the caller sees it; `None` if it hid it.
    fn of(&self, message: Arc<MessageRow>) -> Option<Seen> {
        let own = self.own.get(&message.seq);
        if own.is_some_and(|receipt| receipt.hidden) {
            return None;
        }
        let state = if message.sender == self.caller {
            least_advanced(self.others.get(&message.seq).map_or(&[], Vec::as_slice))
        } else {
            own.map(|receipt| MessageState::from(*receipt)).unwrap_or_default()
        };
        Some(Seen { message, state, pos: own.and_then(|receipt| receipt.pos) })
    }
}

/// How far a message came with the last of those who got it; times only once all have it (contract §10).
fn least_advanced(receipts: &[ReceiptRow]) -> MessageState {
    let got = receipts.iter().filter(|receipt| receipt.pos.is_some());
    let Some(status) = got.clone().map(|receipt| receipt.state).min() else { return MessageState::default() };
    let all = |of: fn(&ReceiptRow) -> Option<Timestamp>| got.clone().map(of).collect::<Option<Vec<_>>>();
    let latest = |times: Option<Vec<Timestamp>>| times.and_then(|times| times.into_iter().max());
    MessageState {
        status,
        delivered_at: latest(all(|receipt| receipt.delivered_at)),
        read_at: latest(all(|receipt| receipt.read_at)),
    }
}
