//! Identifiers: small `Copy` newtypes with one text form each.
//!
//! Owns the mapping between bytes and the opaque strings on the wire; nothing else parses an id.
//!
//! I1  The text form is `<prefix>_<suffix>` with a suffix of `[A-Za-z0-9]`, at most 64 characters in all.
//! I2  A direct conversation id is a pure function of its two members: both ends derive the same one, so no look-up
//!     and no race decides which conversation a pair shares.
//! I3  A message id is a pure function of (conversation, seq): no index from message id to place exists or is needed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Characters of every id suffix.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Length of the random or derived part of agent and conversation ids: 95 bits.
const KEY_LEN: usize = 16;

/// A string that is not an id of the expected kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0} id")]
pub struct BadId(pub &'static str);

/// The 16 base-62 characters that make an id unique.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key([u8; KEY_LEN]);

impl Key {
    /// Maps 16 bytes of entropy (or of a hash) onto the alphabet. Bias is below 2⁻⁵ per character and irrelevant here.
    pub fn from_bytes(entropy: [u8; KEY_LEN]) -> Self {
        Self(entropy.map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()]))
    }

    fn parse(text: &str, kind: &'static str) -> Result<Self, BadId> {
        let bytes: [u8; KEY_LEN] = text.as_bytes().try_into().map_err(|_| BadId(kind))?;
        if bytes.iter().all(u8::is_ascii_alphanumeric) { Ok(Self(bytes)) } else { Err(BadId(kind)) }
    }

    /// The characters as text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The characters as bytes, as used in storage keys.
    pub fn as_bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An agent: `agt_` and 16 characters. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgentId(pub Key);

/// Direct or group: the only thing clients read from a conversation id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ConversationKind {
    /// Two agents, `conv_`.
    Direct,
    /// Up to 256 members, `grp_`.
    Group,
}

/// A conversation: `conv_` or `grp_` and 16 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConversationId {
    /// Which gates and prefix apply.
    pub kind: ConversationKind,
    /// The unique part.
    pub key: Key,
}

impl ConversationId {
    /// The one conversation that two agents share (I2). Symmetric in its arguments.
    pub fn direct(a: AgentId, b: AgentId) -> Self {
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        let digest = Sha256::new().chain_update(b"direct").chain_update(low.0.0).chain_update(high.0.0).finalize();
        let mut entropy = [0; KEY_LEN];
        entropy.copy_from_slice(&digest[..KEY_LEN]);
        Self { kind: ConversationKind::Direct, key: Key::from_bytes(entropy) }
    }
}

/// An owner: `own_` and 16 characters. Never shown to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OwnerId(pub Key);

impl OwnerId {
    /// The one owner with this address in its stored form: whichever node signs it in first, it is the same one.
    pub fn of_email(email: &str) -> Self {
        let digest = Sha256::new().chain_update(b"owner").chain_update(email).finalize();
        let mut entropy = [0; KEY_LEN];
        entropy.copy_from_slice(&digest[..KEY_LEN]);
        Self(Key::from_bytes(entropy))
    }
}

/// An invitation into a group: `inv_` and 16 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InviteId(pub Key);

/// A webhook: `wh_` and 16 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WebhookId(pub Key);

/// Place of a message in its conversation, from 1 without holes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seq(pub u64);

impl Seq {
    /// The place after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Place of a delivery in one agent's inbox, from 1, increasing; holes are legal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Pos(pub u64);

impl Pos {
    /// The place after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A message: `msg_`, the conversation's kind and key, and the seq in base 62 (I3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId {
    /// Where it stands.
    pub conversation: ConversationId,
    /// Its place there.
    pub seq: Seq,
}

/// One agent's delivery: `del_` and 32 hex digits, the position and a tag that binds it to its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeliveryId {
    tag: u64,
    /// Place in the inbox.
    pub pos: Pos,
}

impl DeliveryId {
    /// The id of `agent`'s delivery at `pos`.
    pub fn new(agent: AgentId, pos: Pos) -> Self {
        Self { tag: Self::tag(agent, pos), pos }
    }

    /// Whether this id was made for `agent`.
    pub fn belongs_to(self, agent: AgentId) -> bool {
        self.tag == Self::tag(agent, self.pos)
    }

    fn tag(agent: AgentId, pos: Pos) -> u64 {
        let digest = Sha256::new().chain_update(agent.0.0).chain_update(pos.0.to_be_bytes()).finalize();
        digest[..8].iter().fold(0, |acc, byte| acc << 8 | u64::from(*byte))
    }
}

/// SHA-256 of an API key: what is stored and compared in place of the key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// The hash of a presented key.
    pub fn of(api_key: &str) -> Self {
        Self(Sha256::digest(api_key.as_bytes()).into())
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(..)")
    }
}

/// Text forms of ids that are a prefix and a key.
macro_rules! keyed_id {
    ($type:ident, $prefix:literal, $kind:literal) => {
        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.as_str())
            }
        }

        impl FromStr for $type {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                Key::parse(text.strip_prefix($prefix).ok_or(BadId($kind))?, $kind).map(Self)
            }
        }
    };
}

keyed_id!(AgentId, "agt_", "agent");
keyed_id!(OwnerId, "own_", "owner");
keyed_id!(InviteId, "inv_", "invite");
keyed_id!(WebhookId, "wh_", "webhook");

impl fmt::Display for ConversationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = match self.kind {
            ConversationKind::Direct => "conv",
            ConversationKind::Group => "grp",
        };
        write!(f, "{prefix}_{}", self.key.as_str())
    }
}

impl FromStr for ConversationId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let (kind, key) = match text.split_once('_') {
            Some(("conv", key)) => (ConversationKind::Direct, key),
            Some(("grp", key)) => (ConversationKind::Group, key),
            _ => return Err(BadId("conversation")),
        };
        Ok(Self { kind, key: Key::parse(key, "conversation")? })
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.conversation.kind {
            ConversationKind::Direct => 'd',
            ConversationKind::Group => 'g',
        };
        write!(f, "msg_{}{kind}", self.conversation.key.as_str())?;
        let (mut digits, mut rest, mut at) = ([0u8; 11], self.seq.0, 11);
        loop {
            at -= 1;
            digits[at] = ALPHABET[(rest % 62) as usize];
            rest /= 62;
            if rest == 0 {
                return f.write_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
            }
        }
    }
}

impl FromStr for MessageId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        const BAD: BadId = BadId("message");
        let suffix = text.strip_prefix("msg_").filter(|suffix| suffix.is_ascii()).ok_or(BAD)?;
        if !(KEY_LEN + 2..=KEY_LEN + 12).contains(&suffix.len()) {
            return Err(BAD);
        }
        let (key, rest) = suffix.split_at(KEY_LEN);
        let kind = match rest.as_bytes()[0] {
            b'd' => ConversationKind::Direct,
            b'g' => ConversationKind::Group,
            _ => return Err(BAD),
        };
        let digits = &rest.as_bytes()[1..];
        let mut seq = 0u64;
        for digit in digits {
            let value = ALPHABET.iter().position(|letter| letter == digit).ok_or(BAD)?;
            seq = seq.checked_mul(62).and_then(|seq| seq.checked_add(value as u64)).ok_or(BAD)?;
        }
        // One text form per id: no leading zeros, and 0 is nobody's seq.
        if seq == 0 || digits[0] == ALPHABET[0] {
            return Err(BAD);
        }
        Ok(Self { conversation: ConversationId { kind, key: Key::parse(key, "message")? }, seq: Seq(seq) })
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "del_{:016x}{:016x}", self.tag, self.pos.0)
    }
}

impl FromStr for DeliveryId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        const BAD: BadId = BadId("delivery");
        let hex = text.strip_prefix("del_").ok_or(BAD)?;
        let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if hex.len() != 32 || !hex.bytes().all(lower_hex) {
            return Err(BAD);
        }
        let part = |text: &str| u64::from_str_radix(text, 16).map_err(|_| BAD);
        Ok(Self { tag: part(&hex[..16])?, pos: Pos(part(&hex[16..])?) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn conversation(entropy: [u8; 16], group: bool) -> ConversationId {
        let kind = if group { ConversationKind::Group } else { ConversationKind::Direct };
        ConversationId { kind, key: Key::from_bytes(entropy) }
    }

    proptest! {
        #[test]
        fn every_id_survives_its_text_form(a: [u8; 16], b: [u8; 16], group: bool, n in 1u64..) {
            let (agent, other) = (AgentId(Key::from_bytes(a)), AgentId(Key::from_bytes(b)));
            prop_assert_eq!(agent.to_string().parse(), Ok(agent));
            prop_assert_eq!(OwnerId(agent.0).to_string().parse(), Ok(OwnerId(agent.0)));
            prop_assert_eq!(InviteId(agent.0).to_string().parse(), Ok(InviteId(agent.0)));
            prop_assert_eq!(WebhookId(agent.0).to_string().parse(), Ok(WebhookId(agent.0)));
            let conversation = conversation(a, group);
            prop_assert_eq!(conversation.to_string().parse(), Ok(conversation));
            let message = MessageId { conversation, seq: Seq(n) };
            prop_assert_eq!(message.to_string().parse(), Ok(message));
            let delivery = DeliveryId::new(agent, Pos(n));
            prop_assert_eq!(delivery.to_string().parse(), Ok(delivery));
            prop_assert!(delivery.belongs_to(agent));
            prop_assert!(agent == other || !delivery.belongs_to(other));
            prop_assert_eq!(ConversationId::direct(agent, other), ConversationId::direct(other, agent));
        }

        #[test]
        fn garbage_is_refused_and_never_panics(text in "\\PC{0,70}") {
            let _ = (text.parse::<AgentId>(), text.parse::<ConversationId>());
            let _ = (text.parse::<MessageId>(), text.parse::<DeliveryId>());
            let _ = format!("msg_{text}").parse::<MessageId>();
            let _ = format!("del_{text}").parse::<DeliveryId>();
        }
    }
}
