//! Reads values of a line that other users may have written, in bounded memory.
//!
//! A general JSON value takes up to a hundred times the size of its text. A line of a record has at
//! most a megabyte, so its values could take a hundred. So they are counted first.

use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// How many values of one event are read. A context has some hundred.
pub(super) const MAX_VALUES: usize = 4096;

/// The result of reading any JSON value and keeping nothing of it: how many values it contains.
/// Unlike `IgnoredAny`, it checks the texts and numbers, and refuses what is nested too deep.
pub(super) struct Checked(pub(super) usize);

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Self(1))
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut values: A) -> Result<Self, A::Error> {
        while let Some(Self(more)) = values.next_element()? {
            self.0 += more;
        }
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut fields: A) -> Result<Self, A::Error> {
        while let Some((Self(_), Self(more))) = fields.next_entry()? {
            self.0 += more;
        }
        Ok(self)
    }
}

/// Reads a value. If it consists of too many values, a text says how many there are.
pub(super) fn few_values<'de, D: Deserializer<'de>>(from: D) -> Result<Value, D::Error> {
    Ok(few(from)?.unwrap_or_else(Value::String))
}

/// The same for the fields of an object.
pub(super) fn few_fields<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Map<String, Value>, D::Error> {
    match few(from)? {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(D::Error::custom("not an object")),
        Err(count) => Ok([("…".to_owned(), Value::String(count))].into_iter().collect()),
    }
}

fn few<'de, D: Deserializer<'de>>(from: D) -> Result<Result<Value, String>, D::Error> {
    let text = <&RawValue>::deserialize(from)?.get();
    let read = serde_json::from_str(text).and_then(|Checked(count)| match count {
        ..=MAX_VALUES => serde_json::from_str(text).map(Ok),
        _ => Ok(Err(format!("{count} values"))),
    });
    read.map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, Event};

    #[test]
    fn few_values_are_read_and_of_many_their_number() {
        let read = |values: &str| {
            let line = format!(
                r#"{{"v":1,"ts":"2026-11-23T10:15:00Z","mono_us":1,"event":"phase_progress",
                "phase":"drain","offset_us":1,"values":{values}}}"#
            );
            match Entry::parse(line.as_bytes()).ok()?.event {
                Event::PhaseProgress(progress) => Some(progress.values),
                other => panic!("{other:?}"),
            }
        };
        let many = format!("{{\"a\":[{}1]}}", "1,".repeat(4096));
        let full = format!("{{\"a\":[{}1]}}", "1,".repeat(4093));
        assert_eq!(read(&full).unwrap()["a"].as_array().unwrap().len(), 4094);
        assert_eq!(read(&many).unwrap()["…"], "4099 values");
        assert_eq!(read("{}"), Some(serde_json::Map::new()));
        for other in ["\"text\"", "[]", "null", "1", "{", "{\"a\":\"\\ud800\"}"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
