//! Limits that the gateway keeps itself: those counted per address, and those on what no entity counts.
//!
//! G1  N per period admits a burst of N, then one each period/N. A refusal says when the next one would pass.
//! G2  An IPv6 peer is its /64: one subscriber holds that many addresses, and must not get a budget for each.
//! G3  Memory is bounded: idle keys are forgotten, and a gate that is still full counts by wider networks.
//! G4  Where nodes share windows, the shared one judges and the one here only counts along. While they cannot be reached
//!     the one here judges: each client then has one budget per node, and never none.

use std::fmt::Display;
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use schema::ids::{AgentId, ConversationId, OwnerId};

use crate::shared::{Shared, Taking, Window};
use crate::wire::error::ApiError;

/// Keys that one gate tells apart; about 50 MiB.
const KEYS_MAX: usize = 500_000;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Rates in force; `None` lifts one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Registrations, per IP.
    pub register_per_hour: Option<u32>,
    /// Verifications of each kind, per IP.
    pub verify_per_10_minutes: Option<u32>,
    /// Recoveries, per IP.
    pub recover_per_hour: Option<u32>,
    /// Key rotations, per agent.
    pub rotate_per_hour: Option<u32>,
    /// Public profiles, per IP.
    pub profiles_per_minute: Option<u32>,
    /// Directory searches, per agent; both stack.
    pub directory_per_minute: Option<u32>,
    /// See [`Rates::directory_per_minute`].
    pub directory_per_day: Option<u32>,
    /// Directory searches without key, per IP.
    pub directory_anonymous_per_minute: Option<u32>,
    /// Avatars, per agent and per group.
    pub avatars_per_minute: Option<u32>,
    /// Announced uploads, per agent.
    pub uploads_per_minute: Option<u32>,
    /// New webhooks, per agent.
    pub webhooks_per_minute: Option<u32>,
    /// Changes of groups, per agent.
    pub group_changes_per_second: Option<u32>,
    /// Sign-in codes for the dashboard, per IP.
    pub sign_in_per_hour: Option<u32>,
    /// Sign-ins, per IP.
    pub sign_in_verify_per_10_minutes: Option<u32>,
    /// Refreshes of dashboard tokens, per IP.
    pub refresh_per_minute: Option<u32>,
    /// Claims, per IP.
    pub claims_per_10_minutes: Option<u32>,
    /// Requests to the dashboard, per owner: the limit on all authenticated requests.
    pub owner_requests_per_second: Option<u32>,
}

/// What a code is verified for. Each kind is counted by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// `POST /v1/register/verify`.
    Register,
    /// `POST /v1/agents/recover/verify`.
    Recover,
    /// `POST /v1/agents/{handle}/rotate-key/verify`.
    Rotate,
}

/// All of them.
pub struct Gates {
    shared: Shared,
    register: Gate<IpAddr>,
    verify_register: Gate<IpAddr>,
    verify_recover: Gate<IpAddr>,
    verify_rotate: Gate<IpAddr>,
    recover: Gate<IpAddr>,
    rotate: Gate<AgentId>,
    profile: Gate<IpAddr>,
    directory: (Gate<AgentId>, Gate<AgentId>),
    directory_anonymous: Gate<IpAddr>,
    avatar: Gate<AgentId>,
    group_avatar: Gate<ConversationId>,
    upload: Gate<AgentId>,
    webhook: Gate<AgentId>,
    group_change: Gate<AgentId>,
    sign_in: Gate<IpAddr>,
    verify_sign_in: Gate<IpAddr>,
    refresh: Gate<IpAddr>,
    claim: Gate<IpAddr>,
    owner_request: Gate<OwnerId>,
}

impl Gates {
    /// With nothing counted yet here; what nodes share goes on.
    pub fn new(rates: Rates, shared: Shared) -> Self {
        let verify = |name| Gate::new(name, rates.verify_per_10_minutes, 10 * MINUTE);
        Self {
            shared,
            register: Gate::new("register", rates.register_per_hour, HOUR),
            verify_register: verify("verify-register"),
            verify_recover: verify("verify-recover"),
            verify_rotate: verify("verify-rotate"),
            recover: Gate::new("recover", rates.recover_per_hour, HOUR),
            rotate: Gate::new("rotate", rates.rotate_per_hour, HOUR),
            profile: Gate::new("profile", rates.profiles_per_minute, MINUTE),
            directory: (
                Gate::new("directory-minute", rates.directory_per_minute, MINUTE),
                Gate::new("directory-day", rates.directory_per_day, DAY),
            ),
            directory_anonymous: Gate::new("directory-anonymous", rates.directory_anonymous_per_minute, MINUTE),
            avatar: Gate::new("avatar", rates.avatars_per_minute, MINUTE),
            group_avatar: Gate::new("group-avatar", rates.avatars_per_minute, MINUTE),
            upload: Gate::new("upload", rates.uploads_per_minute, MINUTE),
            webhook: Gate::new("webhook", rates.webhooks_per_minute, MINUTE),
            group_change: Gate::new("group-change", rates.group_changes_per_second, SECOND),
            sign_in: Gate::new("sign-in", rates.sign_in_per_hour, HOUR),
            verify_sign_in: Gate::new("verify-sign-in", rates.sign_in_verify_per_10_minutes, 10 * MINUTE),
            refresh: Gate::new("refresh", rates.refresh_per_minute, MINUTE),
            claim: Gate::new("claim", rates.claims_per_10_minutes, 10 * MINUTE),
            owner_request: Gate::new("owner-request", rates.owner_requests_per_second, SECOND),
        }
    }

    /// Admits one registration.
    pub async fn register(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.pass_ip(&self.register, ip).await
    }

    /// Admits one verification.
    pub async fn verify(&self, what: Verify, ip: IpAddr) -> Result<(), ApiError> {
        let gate = match what {
            Verify::Register => &self.verify_register,
            Verify::Recover => &self.verify_recover,
            Verify::Rotate => &self.verify_rotate,
        };
        self.pass_ip(gate, ip).await
    }

    /// Admits one recovery.
    pub async fn recover(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.pass_ip(&self.recover, ip).await
    }

    /// Admits one start of a key rotation.
    pub async fn rotate(&self, agent: AgentId) -> Result<(), ApiError> {
        self.pass(&self.rotate, agent).await
    }

    /// Admits one look at a public profile.
    pub async fn profile(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.pass_ip(&self.profile, ip).await
    }

    /// Admits one search of an agent.
    pub async fn directory(&self, agent: AgentId) -> Result<(), ApiError> {
        let (minute, day) = &self.directory;
        let takings = minute.taking(&agent).into_iter().chain(day.taking(&agent)).collect();
        self.judge(takings, || minute.pass(&agent).and_then(|()| day.pass(&agent))).await
    }

    /// Admits one search of somebody without a key.
    pub async fn directory_anonymous(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.pass_ip(&self.directory_anonymous, ip).await
    }

    /// Admits one avatar of an agent.
    pub async fn avatar(&self, agent: AgentId) -> Result<(), ApiError> {
        self.pass(&self.avatar, agent).await
    }

    /// Admits one change of a group's avatar.
    pub async fn group_avatar(&self, group: ConversationId) -> Result<(), ApiError> {
        self.pass(&self.group_avatar, group).await
    }

    /// Admits one announced upload.
    pub async fn upload(&self, agent: AgentId) -> Result<(), ApiError> {
        self.pass(&self.upload, agent).await
    }

    /// Admits one new webhook.
    pub async fn webhook(&self, agent: AgentId) -> Result<(), ApiError> {
        self.pass(&self.webhook, agent).await
    }

    /// Admits one change of a group by an agent.
    pub async fn group_change(&self, agent: AgentId) -> Result<(), ApiError> {
        self.pass(&self.group_change, agent).await
    }

    async fn pass<K: Clone + Hash + Eq + Display>(&self, gate: &Gate<K>, key: K) -> Result<(), ApiError> {
        self.judge(gate.taking(&key).into_iter().collect(), || gate.pass(&key)).await
    }

    async fn pass_ip(&self, gate: &Gate<IpAddr>, ip: IpAddr) -> Result<(), ApiError> {
        // Redis bounds its own memory: there a network is never counted by a wider one (G3).
        self.judge(gate.taking(&peer(ip)).into_iter().collect(), || gate.pass_ip(ip)).await
    }

    /// By the shared windows, or else by the ones here (G4).
    async fn judge(&self, takings: Vec<Taking>, here: impl Fn() -> Result<(), ApiError>) -> Result<(), ApiError> {
        if takings.is_empty() {
            return Ok(());
        }
        match self.shared.take(&takings).await {
            Some(Err(retry_after_ms)) => Err(ApiError::RateLimited { retry_after_ms }),
            Some(Ok(())) => {
                // Counted along. It may refuse by a moment what was admitted elsewhere: that is not its to say.
                let _ = here();
                Ok(())
            }
            None => here(),
        }
    }

    /// Admits one sign-in code.
    pub async fn sign_in(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.pass_ip(&self.sign_in, ip).await
    }

    /// Admits one sign-in.
    pub async fn verify_sign_in(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.pass_ip(&self.verify_sign_in, ip).await
    }

    /// Admits one refresh of dashboard tokens.
    pub async fn refresh(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.pass_ip(&self.refresh, ip).await
    }

    /// Admits one claim.
    pub async fn claim(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.pass_ip(&self.claim, ip).await
    }

    /// Admits one request of an owner who is signed in.
    pub async fn owner_request(&self, owner: OwnerId) -> Result<(), ApiError> {
        self.pass(&self.owner_request, owner).await
    }

    /// Drops every key whose budget is whole again (G3).
    pub fn forget_idle(&self) {
        let by_agent = [
            &self.rotate,
            &self.directory.0,
            &self.directory.1,
            &self.avatar,
            &self.upload,
            &self.webhook,
            &self.group_change,
        ];
        by_agent.into_iter().for_each(Gate::forget_idle);
        self.group_avatar.forget_idle();
        self.owner_request.forget_idle();
        let by_ip = [
            &self.register,
            &self.verify_register,
            &self.verify_recover,
            &self.verify_rotate,
            &self.recover,
            &self.profile,
            &self.directory_anonymous,
            &self.sign_in,
            &self.verify_sign_in,
            &self.refresh,
            &self.claim,
        ];
        by_ip.into_iter().for_each(Gate::forget_idle);
    }
}

/// One limit: as all nodes count it, and as this one does. Without it everything passes.
#[derive(Debug)]
struct Gate<K: Clone + Hash + Eq>(Option<(Window, DefaultKeyedRateLimiter<K>)>);

impl<K: Clone + Hash + Eq> Gate<K> {
    /// `per_period` of 0 cannot be a budget and lifts the limit as `None` does.
    fn new(name: &'static str, per_period: Option<u32>, period: Duration) -> Self {
        Self(per_period.and_then(NonZeroU32::new).and_then(|burst| {
            let one_per = period / burst.get();
            let quota = Quota::with_period(one_per)?.allow_burst(burst);
            Some((Window::new(name, burst.get(), period), RateLimiter::keyed(quota)))
        }))
    }

    /// The place of a key in the shared window.
    fn taking(&self, key: &K) -> Option<Taking>
    where
        K: Display,
    {
        self.0.as_ref().map(|(window, _)| window.of(key))
    }

    fn pass(&self, key: &K) -> Result<(), ApiError> {
        let Some((_, limiter)) = &self.0 else { return Ok(()) };
        limiter.check_key(key).map_err(|refused| {
            let wait = refused.wait_time_from(DefaultClock::default().now());
            let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            ApiError::RateLimited { retry_after_ms: millis.max(1) }
        })
    }

    fn forget_idle(&self) {
        if let Some((_, limiter)) = &self.0 {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

impl Gate<IpAddr> {
    fn pass_ip(&self, ip: IpAddr) -> Result<(), ApiError> {
        let full = self.0.as_ref().is_some_and(|(_, limiter)| limiter.len() >= KEYS_MAX);
        self.pass(&if full { wider(ip) } else { peer(ip) })
    }
}

/// Who an address stands for (G2).
fn peer(ip: IpAddr) -> IpAddr {
    network(ip, 32, 64)
}

/// Its surroundings: at most 2¹⁶ networks of version 4 that a full gate still adds (G3).
fn wider(ip: IpAddr) -> IpAddr {
    network(ip, 16, 32)
}

fn network(ip: IpAddr, v4_bits: u32, v6_bits: u32) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - v4_bits).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & mask))
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - v6_bits).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use schema::ids::Key;

    use super::*;

    fn gates() -> Gates {
        let rates = Rates {
            register_per_hour: Some(5),
            verify_per_10_minutes: Some(10),
            recover_per_hour: Some(3),
            rotate_per_hour: Some(5),
            profiles_per_minute: None,
            directory_per_minute: Some(60),
            directory_per_day: Some(1_000),
            directory_anonymous_per_minute: Some(30),
            avatars_per_minute: Some(5),
            uploads_per_minute: Some(60),
            webhooks_per_minute: Some(10),
            group_changes_per_second: Some(10),
            ..Rates::default()
        };
        Gates::new(rates, Shared::default())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[track_caller]
    fn check_wait(refused: Result<(), ApiError>, minutes: u64) {
        let Err(ApiError::RateLimited { retry_after_ms }) = refused else { panic!("{refused:?}") };
        let most = minutes * 60_000;
        assert!((most - 5_000..=most).contains(&retry_after_ms), "{retry_after_ms}");
    }

    #[tokio::test]
    async fn a_burst_passes_and_the_refusal_says_when_the_next_would() {
        let gates = gates();
        for _ in 0..5 {
            assert_eq!(gates.register(ip("192.0.2.1")).await, Ok(()));
        }
        check_wait(gates.register(ip("192.0.2.1")).await, 12);
        assert_eq!(gates.register(ip("192.0.2.2")).await, Ok(()));
        for _ in 0..3 {
            assert_eq!(gates.recover(ip("192.0.2.1")).await, Ok(()));
        }
        check_wait(gates.recover(ip("192.0.2.1")).await, 20);
        let agent = AgentId(Key::from_bytes([1; 16]));
        for _ in 0..5 {
            assert_eq!(gates.rotate(agent).await, Ok(()));
        }
        check_wait(gates.rotate(agent).await, 12);
    }

    #[tokio::test]
    async fn kinds_of_verification_are_counted_apart() {
        let (gates, from) = (gates(), ip("192.0.2.1"));
        for _ in 0..10 {
            assert_eq!(gates.verify(Verify::Register, from).await, Ok(()));
        }
        check_wait(gates.verify(Verify::Register, from).await, 1);
        assert_eq!(gates.verify(Verify::Recover, from).await, Ok(()));
        assert_eq!(gates.verify(Verify::Rotate, from).await, Ok(()));
    }

    #[test]
    #[rustfmt::skip] // the columns are the test
    fn an_ipv6_peer_is_its_network() {
        assert_eq!(peer(ip("2001:db8:0:1::1")),     peer(ip("2001:db8:0:1:ffff::2")));
        assert_ne!(peer(ip("2001:db8:0:1::1")),     peer(ip("2001:db8:0:2::1")));
        assert_eq!(peer(ip("::ffff:192.0.2.1")),    ip("192.0.2.1")); // the same host through a dual-stack socket
        assert_ne!(peer(ip("192.0.2.1")),           peer(ip("192.0.2.2")));
        assert_eq!(wider(ip("192.0.2.1")),          ip("192.0.0.0"));
    }

    #[tokio::test]
    async fn a_lifted_limit_never_refuses_and_idle_keys_go() {
        let gates = gates();
        for _ in 0..1_000 {
            assert_eq!(gates.profile(ip("192.0.2.1")).await, Ok(()));
        }
        assert_eq!(gates.register(ip("192.0.2.1")).await, Ok(()));
        gates.forget_idle();
        assert_eq!(gates.register.0.as_ref().map(|(_, limiter)| limiter.len()), Some(1)); // its budget is not whole yet
        let fast = Gate::<IpAddr>::new("fast", Some(1_000_000), Duration::from_millis(1));
        fast.pass(&ip("192.0.2.1")).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        fast.forget_idle();
        assert_eq!(fast.0.as_ref().map(|(_, limiter)| limiter.len()), Some(0));
    }

    #[tokio::test]
    async fn a_search_counts_for_both_spans() {
        let (gates, agent) = (gates(), AgentId(Key::from_bytes([1; 16])));
        for _ in 0..60 {
            assert_eq!(gates.directory(agent).await, Ok(()));
        }
        let Err(ApiError::RateLimited { retry_after_ms }) = gates.directory(agent).await else { panic!("the 61st") };
        assert!(retry_after_ms <= 1_000, "{retry_after_ms}");
        let (minute, day) = (gates.directory.0.taking(&agent), gates.directory.1.taking(&agent));
        assert!(minute.is_some() && minute != day, "and the shared windows are two as well");
        assert_eq!(gates.profile.taking(&ip("192.0.2.1")), None, "what is lifted is asked of nobody");
    }
}
