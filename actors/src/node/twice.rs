//! An optional value that may itself be cleared, on the wire between nodes: MessagePack has one kind of nothing only.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The inner value goes into a tuple.
pub(crate) fn serialize<T: Serialize, S: Serializer>(
    value: &Option<Option<T>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    value.as_ref().map(|inner| (inner,)).serialize(serializer)
}

/// And out of it.
pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::<(Option<T>,)>::deserialize(deserializer)?.map(|(inner,)| inner))
}
