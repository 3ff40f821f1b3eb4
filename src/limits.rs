//! Limits that the gateway keeps itself: those counted per address, and those on what no entity counts.
//!
//! G1  N per period admits a burst of N, then one each period/N. A refusal says when the next one would pass.
//! G2  An IPv6 peer is its /64: one subscriber holds that many addresses, and must not get a budget for each.
//! G3  Memory is bounded: idle keys are forgotten, and a gate that is still full counts by wider networks.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use schema::ids::{AgentId, ConversationId};

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
#[derive(Debug)]
pub struct Gates {
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
}

impl Gates {
    /// With nothing counted yet.
    pub fn new(rates: Rates) -> Self {
        let verify = || Gate::new(rates.verify_per_10_minutes, 10 * MINUTE);
        Self {
            register: Gate::new(rates.register_per_hour, HOUR),
            verify_register: verify(),
            verify_recover: verify(),
            verify_rotate: verify(),
            recover: Gate::new(rates.recover_per_hour, HOUR),
            rotate: Gate::new(rates.rotate_per_hour, HOUR),
            profile: Gate::new(rates.profiles_per_minute, MINUTE),
            directory: (Gate::new(rates.directory_per_minute, MINUTE), Gate::new(rates.directory_per_day, DAY)),
            directory_anonymous: Gate::new(rates.directory_anonymous_per_minute, MINUTE),
            avatar: Gate::new(rates.avatars_per_minute, MINUTE),
            group_avatar: Gate::new(rates.avatars_per_minute, MINUTE),
            upload: Gate::new(rates.uploads_per_minute, MINUTE),
            webhook: Gate::new(rates.webhooks_per_minute, MINUTE),
            group_change: Gate::new(rates.group_changes_per_second, SECOND),
            sign_in: Gate::new(rates.sign_in_per_hour, HOUR),
            verify_sign_in: Gate::new(rates.sign_in_verify_per_10_minutes, 10 * MINUTE),
            refresh: Gate::new(rates.refresh_per_minute, MINUTE),
            claim: Gate::new(rates.claims_per_10_minutes, 10 * MINUTE),
        }
    }

    /// Admits one registration.
    pub fn register(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.register.pass_ip(ip)
    }

    /// Admits one verification.
    pub fn verify(&self, what: Verify, ip: IpAddr) -> Result<(), ApiError> {
        match what {
            Verify::Register => self.verify_register.pass_ip(ip),
            Verify::Recover => self.verify_recover.pass_ip(ip),
            Verify::Rotate => self.verify_rotate.pass_ip(ip),
        }
    }

    /// Admits one recovery.
    pub fn recover(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.recover.pass_ip(ip)
    }

    /// Admits one start of a key rotation.
    pub fn rotate(&self, agent: AgentId) -> Result<(), ApiError> {
        self.rotate.pass(&agent)
    }

    /// Admits one look at a public profile.
    pub fn profile(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.profile.pass_ip(ip)
    }

    /// Admits one search of an agent.
    pub fn directory(&self, agent: AgentId) -> Result<(), ApiError> {
        self.directory.0.pass(&agent)?;
        self.directory.1.pass(&agent)
    }

    /// Admits one search of somebody without a key.
    pub fn directory_anonymous(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.directory_anonymous.pass_ip(ip)
    }

    /// Admits one avatar of an agent.
    pub fn avatar(&self, agent: AgentId) -> Result<(), ApiError> {
        self.avatar.pass(&agent)
    }

    /// Admits one change of a group's avatar.
    pub fn group_avatar(&self, group: ConversationId) -> Result<(), ApiError> {
        self.group_avatar.pass(&group)
    }

    /// Admits one announced upload.
    pub fn upload(&self, agent: AgentId) -> Result<(), ApiError> {
        self.upload.pass(&agent)
    }

    /// Admits one new webhook.
    pub fn webhook(&self, agent: AgentId) -> Result<(), ApiError> {
        self.webhook.pass(&agent)
    }

    /// Admits one change of a group by an agent.
    pub fn group_change(&self, agent: AgentId) -> Result<(), ApiError> {
        self.group_change.pass(&agent)
    }

    /// Admits one sign-in code.
    pub fn sign_in(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.sign_in.pass_ip(ip)
    }

    /// Admits one sign-in.
    pub fn verify_sign_in(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.verify_sign_in.pass_ip(ip)
    }

    /// Admits one refresh of dashboard tokens.
    pub fn refresh(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.refresh.pass_ip(ip)
    }

    /// Admits one claim.
    pub fn claim(&self, ip: IpAddr) -> Result<(), ApiError> {
        self.claim.pass_ip(ip)
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

/// One limit. Without a limiter everything passes.
#[derive(Debug)]
struct Gate<K: Clone + Hash + Eq>(Option<DefaultKeyedRateLimiter<K>>);

impl<K: Clone + Hash + Eq> Gate<K> {
    /// `per_period` of 0 cannot be a budget and lifts the limit as `None` does.
    fn new(per_period: Option<u32>, period: Duration) -> Self {
        let quota = per_period.and_then(NonZeroU32::new).and_then(|burst| {
            let one_per = period / burst.get();
            Quota::with_period(one_per).map(|quota| quota.allow_burst(burst))
        });
        Self(quota.map(RateLimiter::keyed))
    }

    fn pass(&self, key: &K) -> Result<(), ApiError> {
        let Some(limiter) = &self.0 else { return Ok(()) };
        limiter.check_key(key).map_err(|refused| {
            let wait = refused.wait_time_from(DefaultClock::default().now());
            let millis = u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            ApiError::RateLimited { retry_after_ms: millis.max(1) }
        })
    }

    fn forget_idle(&self) {
        if let Some(limiter) = &self.0 {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

impl Gate<IpAddr> {
    fn pass_ip(&self, ip: IpAddr) -> Result<(), ApiError> {
        let full = self.0.as_ref().is_some_and(|limiter| limiter.len() >= KEYS_MAX);
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
        Gates::new(Rates {
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
        })
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

    #[test]
    fn a_burst_passes_and_the_refusal_says_when_the_next_would() {
        let gates = gates();
        (0..5).for_each(|_| assert_eq!(gates.register(ip("192.0.2.1")), Ok(())));
        check_wait(gates.register(ip("192.0.2.1")), 12);
        assert_eq!(gates.register(ip("192.0.2.2")), Ok(()));
        (0..3).for_each(|_| assert_eq!(gates.recover(ip("192.0.2.1")), Ok(())));
        check_wait(gates.recover(ip("192.0.2.1")), 20);
        let agent = AgentId(Key::from_bytes([1; 16]));
        (0..5).for_each(|_| assert_eq!(gates.rotate(agent), Ok(())));
        check_wait(gates.rotate(agent), 12);
    }

    #[test]
    fn kinds_of_verification_are_counted_apart() {
        let (gates, from) = (gates(), ip("192.0.2.1"));
        (0..10).for_each(|_| assert_eq!(gates.verify(Verify::Register, from), Ok(())));
        check_wait(gates.verify(Verify::Register, from), 1);
        assert_eq!(gates.verify(Verify::Recover, from), Ok(()));
        assert_eq!(gates.verify(Verify::Rotate, from), Ok(()));
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

    #[test]
    fn a_lifted_limit_never_refuses_and_idle_keys_go() {
        let gates = gates();
        (0..1_000).for_each(|_| assert_eq!(gates.profile(ip("192.0.2.1")), Ok(())));
        gates.register(ip("192.0.2.1")).unwrap();
        gates.forget_idle();
        assert_eq!(gates.register.0.as_ref().map(|limiter| limiter.len()), Some(1)); // its budget is not whole yet
        let fast = Gate::<IpAddr>::new(Some(1_000_000), Duration::from_millis(1));
        fast.pass(&ip("192.0.2.1")).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        fast.forget_idle();
        assert_eq!(fast.0.as_ref().map(|limiter| limiter.len()), Some(0));
    }
}
