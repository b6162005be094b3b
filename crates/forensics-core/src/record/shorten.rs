//! An event that is too long for its line, made to fit: better known in part than not at all.
//!
//! A phase may fail with megabytes of text, or record values nested deeper than a reader goes. Its end
//! must be in the record all the same, or the run would look as if it had been killed in that phase.
//! What is cut is marked: a text ends in `…`, a list or an object names how many more there were.

use serde_json::Value;

use crate::escape::cut;
use crate::json;

/// Longest line, its newline included, in bytes. The writer cuts what would be longer, the reader
/// reads none that is.
pub const MAX_LINE: usize = 1 << 20;

/// How deep the values of a line are nested at most. Readers built on serde_json go to 128.
const MAX_DEPTH: usize = 100;

/// What is kept of a line: characters of a text, items of a list or an object, levels.
struct Limits {
    chars: usize,
    items: usize,
    depth: usize,
}

/// From what loses least to what always fits. None cuts a name, which is at most 256 characters.
const STEPS: [Limits; 4] = [
    Limits { chars: 16_384, items: 1024, depth: 32 },
    Limits { chars: 1024, items: 128, depth: 16 },
    Limits { chars: 256, items: 16, depth: 8 },
    Limits { chars: 256, items: 8, depth: 2 },
];

/// Whether the brackets of some JSON are nested deeper than can be read back.
pub(super) fn is_too_deep(json: &[u8]) -> bool {
    // So few cannot be, wherever they stand: that is all there is to do in nearly every line.
    // Counted in bytes, of pieces that fit one, it is many at once.
    let open_in = |piece: &[u8]| {
        piece.iter().fold(0_u8, |open, byte| open + u8::from(matches!(byte, b'[' | b'{')))
    };
    let open: usize = json.chunks(u8::MAX.into()).map(|piece| usize::from(open_in(piece))).sum();
    open > MAX_DEPTH && levels(json).any(|(_, level)| level > MAX_DEPTH)
}

/// Each byte of some JSON, and how many brackets are open behind it.
fn levels(json: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let (mut depth, mut in_text, mut escaped) = (0_usize, false, false);
    json.iter().map(move |&byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => depth += 1,
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
        (byte, depth)
    })
}

/// The same JSON, `"…"` in place of what lies deeper than can be read back.
fn readable(json: &[u8]) -> Vec<u8> {
    let mut readable = Vec::with_capacity(json.len());
    let mut was_deep = false;
    for (byte, level) in levels(json) {
        let is_deep = level > MAX_DEPTH;
        match (was_deep, is_deep) {
            (false, false) => readable.push(byte),
            (false, true) => readable.extend("\"…\"".bytes()),
            // The bracket that closes it, too.
            (true, _) => {}
        }
        was_deep = is_deep;
    }
    readable
}

/// That line, less its newline, in no more than [`MAX_LINE`] bytes.
///
/// It is read back to be cut: made from the event once more, as a value, each event would be compiled
/// once more.
pub(super) fn shortened(line: &[u8]) -> serde_json::Result<Vec<u8>> {
    let value = serde_json::from_slice(&readable(line))?;
    let mut line = Vec::new();
    for limits in STEPS {
        line = json::to_vec(&shorter(&value, &limits, 0))?;
        if line.len() < MAX_LINE {
            break;
        }
    }
    Ok(line)
}

/// `level` 0 is the event itself, whose fields are few and all needed.
fn shorter(value: &Value, limits: &Limits, level: usize) -> Value {
    let more = |all: usize| all.saturating_sub(limits.items);
    let kept = if level == 0 { usize::MAX } else { limits.items };
    let below = |value: &Value| shorter(value, limits, level + 1);
    match value {
        Value::String(text) => cut(text, limits.chars).into(),
        Value::Array(_) | Value::Object(_) if level >= limits.depth => "…".into(),
        Value::Array(all) => {
            let mut some: Vec<Value> = all.iter().take(kept).map(below).collect();
            if some.len() < all.len() {
                some.push(format!("… {} more", more(all.len())).into());
            }
            some.into()
        }
        Value::Object(all) => {
            let some = all.iter().take(kept);
            let name = |name: &String| cut(name, limits.chars.min(256)).into_owned();
            let mut shown = serde_json::Map::new();
            for (key, value) in some {
                shown.insert(name(key), below(value));
            }
            if all.len() > kept {
                shown.insert("…".to_owned(), format!("{} more", more(all.len())).into());
            }
            shown.into()
        }
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn depth(json: &[u8]) -> usize {
        levels(json).map(|(_, level)| level).max().unwrap_or(0)
    }

    fn of_value(value: &Value) -> Vec<u8> {
        shortened(&json::to_vec(value).unwrap()).unwrap()
    }

    #[test]
    fn what_is_cut_is_marked_and_what_fits_a_step_is_kept() {
        let text = "ä".repeat(1 << 20);
        let line = of_value(&json!({ "phase": "drain", "error": text, "values": {"n": 1} }));
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!((&value["phase"], &value["values"]["n"]), (&"drain".into(), &1.into()));
        assert_eq!(value["error"].as_str().unwrap().chars().count(), 16_384);
        assert!(value["error"].as_str().unwrap().ends_with('…'));

        let many: Vec<u32> = (0..1_000_000).collect();
        let value: Value = serde_json::from_slice(&of_value(&json!({ "v": many }))).unwrap();
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
        assert!(of_value(&event.into()).len() < MAX_LINE);
    }

    #[test]
    fn brackets_in_texts_are_no_depth() {
        let cases = [(r#"{"a":[1,{"b":2}]}"#, 3), (r#"{"a":"[[[\"[["}"#, 1), ("1", 0), ("]]]", 0)];
        for (json, expected) in cases {
            assert_eq!(depth(json.as_bytes()), expected, "{json}");
        }
        let brackets = format!("[{}{}]", "[],".repeat(MAX_DEPTH), '1');
        let nested = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert_eq!([&brackets, &nested].map(|json| is_too_deep(json.as_bytes())), [false; 2]);
        assert!(is_too_deep(format!("[{nested}]").as_bytes()));
        let mut deep = json!(1);
        for _ in 0..500 {
            deep = json!([deep]);
        }
        let line = of_value(&json!({ "v": deep, "of": [deep, "]"] }));
        assert_eq!(depth(&line), 32);
        let value: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(value["of"][1], "]");
    }
}
