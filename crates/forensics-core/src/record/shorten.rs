//! Cuts an event that is too long or too deep for one line.
//!
//! A phase may fail with megabytes of text, or record deeply nested values. Its end must still be in
//! the record, or the run would look as if it had been killed in that phase. What is cut is marked: a
//! text ends in `…`, a list or an object says how many more items there were.

use serde_json::Value;

use crate::escape::truncate;
use crate::json;

/// Longest line in bytes, newline included. The writer cuts a longer one, the reader refuses it.
pub const MAX_LINE: usize = 1 << 20;

/// What is kept: characters of a text, items of a list or an object, levels.
#[derive(Clone, Copy)]
struct Limits {
    chars: usize,
    items: usize,
    depth: usize,
}

/// Tried in this order. The last step always fits.
const STEPS: [Limits; 4] = [
    Limits { chars: 16_384, items: 1024, depth: 32 },
    Limits { chars: 1024, items: 128, depth: 16 },
    Limits { chars: 256, items: 16, depth: 8 },
    Limits { chars: 256, items: 8, depth: 2 },
];

/// Longest name of a field, in characters; the names of our own fields are much shorter.
const MAX_NAME: usize = 256;

/// How deep the values of a line may be nested. Readers built on serde_json stop at 127 levels.
const MAX_DEPTH: usize = 100;

/// Whether a line, without its newline, is neither too long nor too deep.
pub(super) fn fits(json: &[u8]) -> bool {
    let is_flat = |value| depth(&value) <= MAX_DEPTH;
    // With fewer brackets, it cannot be too deep, and need not be parsed.
    let brackets = json.iter().filter(|byte| matches!(byte, b'[' | b'{')).count();
    json.len() < MAX_LINE
        && (brackets <= MAX_DEPTH || serde_json::from_slice(json).is_ok_and(is_flat))
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(all) => 1 + all.iter().map(depth).max().unwrap_or(0),
        Value::Object(all) => 1 + all.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The line of an event, without its newline, cut as little as needed to fit.
pub(super) fn shortened(event: &Value) -> serde_json::Result<Vec<u8>> {
    let mut line = Vec::new();
    for limits in STEPS {
        line = json::to_vec(&shorter(event, limits, 0))?;
        if fits(&line) {
            break;
        }
    }
    Ok(line)
}

fn shorter(value: &Value, limits: Limits, level: usize) -> Value {
    // The event's own fields are few, and all of them are needed.
    let items = if level == 0 { usize::MAX } else { limits.items };
    let below = |value| shorter(value, limits, level + 1);
    match value {
        Value::String(text) => truncate(text, limits.chars).into(),
        Value::Array(_) | Value::Object(_) if level >= limits.depth => "…".into(),
        Value::Array(all) => {
            let mut some: Vec<_> = all.iter().take(items).map(below).collect();
            if some.len() < all.len() {
                some.push(format!("… {} more", all.len() - some.len()).into());
            }
            some.into()
        }
        Value::Object(all) => {
            let some = all.iter().take(items);
            let mut some: serde_json::Map<_, _> =
                some.map(|(name, value)| (truncate(name, MAX_NAME), below(value))).collect();
            // Fewer also where two names were cut to the same one.
            if some.len() < all.len() {
                some.insert("…".to_owned(), format!("{} more", all.len() - some.len()).into());
            }
            some.into()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_cut_is_marked_and_what_fits_a_step_is_kept() {
        let text = "ä".repeat(1 << 20);
        let line =
            shortened(&json!({ "phase": "drain", "error": text, "values": {"n": 1} })).unwrap();
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&value["phase"], &value["values"]["n"]), (&"drain".into(), &1.into()));
        assert_eq!(value["error"].as_str().unwrap().chars().count(), 16_384);
        assert!(value["error"].as_str().unwrap().ends_with('…'));

        let many: Vec<u32> = (0..1_000_000).collect();
        let line = shortened(&json!({ "v": many })).unwrap();
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["v"].as_array().unwrap().len(), 1025);
        assert_eq!(value["v"][1024], "… 998976 more");
    }

    #[test]
    fn the_worst_always_fits() {
        // Each character six bytes; names and texts longer than any step keeps, wide and deep.
        let text = "\u{9b}".repeat(300);
        let mut worst = json!(text);
        for _ in 0..3 {
            let object = (0..9).map(|n| (format!("{n}{text}"), worst.clone()));
            worst = object.collect::<serde_json::Map<_, _>>().into();
        }
        let fields = (0..15).map(|n| (format!("field{n}"), worst.clone()));
        let event: serde_json::Map<_, _> = fields.collect();
        assert!(shortened(&event.into()).unwrap().len() < MAX_LINE);
    }

    #[test]
    fn brackets_in_texts_are_no_depth() {
        let brackets = format!("[{}{}]", "[],".repeat(200), '1');
        let text = format!(r#"["{}\"{}\\"]"#, "[".repeat(200), "{".repeat(200));
        let nested = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        for json in [&brackets, &text, &nested] {
            assert!(fits(json.as_bytes()), "{json}");
        }
        assert!(!fits(format!("[{nested}]").as_bytes()));
        let mut deep = json!(1);
        for _ in 0..500 {
            deep = json!([deep]);
        }
        let line = shortened(&json!({ "v": deep, "of": [deep, "]"] })).unwrap();
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(depth(&value), 32);
        assert_eq!(value["of"][1], "]");
    }

    #[test]
    fn names_that_are_cut_to_the_same_are_counted() {
        let name = "n".repeat(300);
        let values =
            json!({ format!("{name}1"): 1, format!("{name}2"): 2, "x": "x".repeat(MAX_LINE) });
        let line = shortened(&json!({ "values": values })).unwrap();
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["values"]["…"], "1 more");
    }
}
