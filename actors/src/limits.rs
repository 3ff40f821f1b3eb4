//! Every number that bounds the domain, with its reason.

use schema::rows::Timestamp;

/// Drafts and messages of one conversation whose sends are not settled; more are refused with a retryable error.
/// At most one page of a store read, so that an activation finds everything that is unfinished.
pub const FANOUT_MAX: usize = 512;
/// An unanswered delivery is repeated after this: longer than a slow sync, shorter than a client's patience.
pub const REDELIVER_MS: u64 = 2_000;
/// A batch whose outcome is unknown or that the store refused is submitted again after this.
pub const BATCH_RETRY_MS: u64 = 250;
/// Cold threads count for this long.
pub const COLD_WINDOW_MS: u64 = 24 * 60 * 60 * 1_000;
/// Members of a group; the contract's number.
pub const GROUP_MEMBERS_MAX: usize = 256;
/// Webhooks per agent; the contract's number.
pub const WEBHOOKS_MAX: usize = 10;
/// Mutes per agent: each is looked at for every delivery.
pub const MUTES_MAX: usize = 1_000;
/// A manual presence without a socket fades after this; the contract's number.
pub const PRESENCE_FADES_MS: u64 = 5 * 60 * 1_000;
/// A snapshot of a presence may be believed for this long: no longer than it may take until a crash shows.
pub const SNAPSHOT_MS: u64 = 60_000;
/// Whoever is asked for its presence shows it again if that was longer ago: before the last one ends.
pub const SHOWN_AGAIN_MS: u64 = SNAPSHOT_MS / 2;
/// Agents per page of those who are told of a presence.
pub const WATCHERS_PAGE: usize = 1_000;
/// Invitations count for this long; the contract's number.
pub const INVITE_WINDOW_MS: u64 = 24 * 60 * 60 * 1_000;
/// Blocks and reports count for at most this long; the contract's number.
pub const SIGNAL_WINDOW_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Blocks restrict within this; the contract's number.
pub const RESTRICT_WINDOW_MS: u64 = 24 * 60 * 60 * 1_000;
/// Blocks that restrict, blocks that suspend, reports that suspend; the contract's numbers.
pub const RESTRICT_BLOCKS: usize = 15;
/// See [`RESTRICT_BLOCKS`].
pub const SUSPEND_BLOCKS: usize = 50;
/// See [`RESTRICT_BLOCKS`].
pub const SUSPEND_REPORTS: usize = 10;
/// Signals kept per agent: several times what suspends it.
pub const SIGNALS_MAX: usize = 500;
/// A claim to answer a message holds for this long; the contract's number.
pub const CLAIM_MS: u64 = 900 * 1_000;
/// A key that a request took is free after this, whatever became of the request: no request runs for so long, and an
/// agent that has nothing else to do stays in memory for as long.
pub const ONCE_MS: u64 = IDLE_MS;
/// Keys of one agent that are taken at a time: its requests of many seconds.
pub const ONCE_MAX: usize = 1_000;
/// Claims and leases of one agent; beyond, the oldest go.
pub const CLAIMS_MAX: usize = 2_000;
/// Rejected claims on one agent within [`CLAIM_REJECTIONS_MS`], after which further ones are refused unseen; the
/// contract's numbers.
pub const CLAIM_REJECTIONS: usize = 5;
/// See [`CLAIM_REJECTIONS`].
pub const CLAIM_REJECTIONS_MS: u64 = 600 * 1_000;
/// An access token of a dashboard works for this long; the contract's number.
pub const ACCESS_MS: u64 = 60 * 60 * 1_000;
/// A refresh token works for this long; the contract's number.
pub const REFRESH_MS: u64 = 30 * 24 * 60 * 60 * 1_000;
/// A refresh that is repeated within this gets the first answer again; the contract's number.
pub const REFRESH_REPEAT_MS: u64 = 30 * 1_000;
/// Refreshes remembered per sign-in: more than a browser needs in [`REFRESH_REPEAT_MS`].
pub const ROTATED_KEPT: usize = 8;
/// Sign-ins of one owner: they lie in one row, and a person has a handful of browsers. The oldest goes.
pub const SIGN_INS_MAX: usize = 50;
/// Dashboard sockets of one owner: a tab each.
pub const WATCHING_MAX: usize = 100;
/// Sockets per agent; the contract's number.
pub const SOCKETS_MAX: usize = 20;
/// Frames handed to a socket and not yet reported written.
pub const UNWRITTEN_MAX: u32 = 512;
/// Echoes that wait for one lagging socket; beyond, the socket is closed.
pub const ECHOES_MAX: usize = 1_024;
/// Rows per page when a lagging socket is fed.
pub const FEED_PAGE: usize = 64;
/// Rows per page of a cursor ack: one batch each.
pub const ACK_PAGE: usize = 500;
/// A full ack window lets one further frame through after this.
pub const STALL_MS: u64 = 5_000;
/// Typing is relayed at most this often per conversation; the contract's number.
pub const TYPING_EVERY_MS: u64 = 1_000;
/// A limit is warned of at most this often; the contract's number.
pub const WARNING_EVERY_MS: u64 = 10_000;
/// An own send that nobody settles is forgotten after this; its requests have timed out long before.
pub const SEND_FORGET_MS: u64 = 30_000;
/// An idle entity leaves memory after this, unless a deployment wants it longer. What lives in memory only relies on it.
pub const IDLE_MS: u64 = 60_000;
/// Conversation views kept by one idle agent.
pub const VIEWS_KEPT: usize = 8;

/// Whether a further event fits into `limit` per `window_ms`, beside those at `times` and those `set_aside`; `Err` says how
/// many milliseconds to wait.
pub fn window_allows(
    times: impl Iterator<Item = Timestamp> + Clone,
    set_aside: usize,
    limit: Option<u32>,
    (now, window_ms): (Timestamp, u64),
) -> Result<(), u64> {
    let Some(limit) = limit else { return Ok(()) };
    let counted = times.filter(|at| now.ms_since(*at) < window_ms);
    if counted.clone().count() + set_aside < limit as usize {
        return Ok(());
    }
    Err(counted.min().map_or(1_000, |oldest| oldest.plus_ms(window_ms).ms_since(now)).max(1_000))
}

/// Limits that a deployment may change. `None` lifts a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Authenticated requests per agent.
    pub requests_per_second: Option<u32>,
    /// Sends per agent.
    pub sends_per_second: Option<u32>,
    /// Sends per group, by all members together.
    pub group_sends_per_second: Option<u32>,
    /// Invitations per agent in 24 h.
    pub invites_per_day: Option<u32>,
    /// Outstanding cold threads per agent in 24 h.
    pub cold_threads: Option<u32>,
    /// Backlog from which senders are warned.
    pub backlog_warn: u32,
    /// Backlog at which sends are refused.
    pub backlog_max: u32,
    /// An entity that nobody has used for so long is passivated; at least [`IDLE_MS`].
    pub idle_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            requests_per_second: Some(60),
            sends_per_second: Some(60),
            group_sends_per_second: Some(20),
            invites_per_day: Some(200),
            cold_threads: Some(100),
            backlog_warn: 5_000,
            backlog_max: 10_000,
            idle_ms: IDLE_MS,
        }
    }
}

/// A token bucket that holds one second's worth.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    /// Time at which the bucket is full again, in microseconds since the epoch.
    full_at_us: u64,
}

impl Bucket {
    /// Takes one token of `per_second`; `Err` says how many milliseconds to wait.
    pub fn take(&mut self, now: Timestamp, per_second: Option<u32>) -> Result<(), u64> {
        let Some(per_second) = per_second.filter(|rate| *rate > 0) else {
            return Ok(());
        };
        let (now_us, cost_us) = (now.0 * 1_000, 1_000_000 / u64::from(per_second));
        let next = self.full_at_us.max(now_us) + cost_us;
        if next - now_us > 1_000_000 {
            return Err(((next - now_us - 1_000_000) / 1_000).max(1));
        }
        self.full_at_us = next;
        Ok(())
    }

    /// Gives one token of `per_second` back.
    pub fn give_back(&mut self, per_second: Option<u32>) {
        if let Some(per_second) = per_second.filter(|rate| *rate > 0) {
            self.full_at_us = self.full_at_us.saturating_sub(1_000_000 / u64::from(per_second));
        }
    }

    /// Tokens that are left now.
    pub fn left(&self, now: Timestamp, per_second: Option<u32>) -> u32 {
        let Some(per_second) = per_second.filter(|rate| *rate > 0) else { return u32::MAX };
        let used_us = self.full_at_us.saturating_sub(now.0 * 1_000).min(1_000_000);
        let left = (1_000_000 - used_us) * u64::from(per_second) / 1_000_000;
        u32::try_from(left).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_one_second_and_tells_what_is_left() {
        let (mut bucket, now) = (Bucket::default(), Timestamp(1_000_000));
        assert_eq!((bucket.left(now, Some(10)), bucket.left(now, None)), (10, u32::MAX));
        for left in (0..10).rev() {
            assert_eq!(bucket.take(now, Some(10)), Ok(()));
            assert_eq!(bucket.left(now, Some(10)), left);
        }
        assert_eq!(bucket.take(now, Some(10)), Err(100));
        bucket.give_back(Some(10));
        assert_eq!(bucket.take(now, Some(10)), Ok(()));
        assert_eq!(bucket.take(now.plus_ms(100), Some(10)), Ok(()));
        assert_eq!(bucket.left(now.plus_ms(2_000), Some(10)), 10);
        assert_eq!(bucket.take(now, None), Ok(()), "a lifted limit takes nothing");
    }
}
