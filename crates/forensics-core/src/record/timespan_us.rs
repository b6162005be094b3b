//! A [`Timespan`] in JSON: a number of microseconds, or `"infinity"`. For `#[serde(with)]`.

use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::Serializer;
use serde_json::Value;

use crate::duration::Timespan;

#[expect(clippy::ref_option, reason = "serde hands out a reference to the field")]
pub(super) fn serialize<S: Serializer>(
    span: &Option<Timespan>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match span {
        None => serializer.serialize_none(),
        Some(Timespan::Infinite) => serializer.serialize_str("infinity"),
        Some(Timespan::Finite(us)) => serializer.serialize_u64(*us),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timespan>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) if text == "infinity" => Ok(Some(Timespan::Infinite)),
        value => value
            .as_u64()
            .map(|us| Some(Timespan::from_micros(us)))
            .ok_or_else(|| D::Error::custom("neither a number of microseconds nor \"infinity\"")),
    }
}
