//! Lines of `key=value`. With any values the result is one line, which reads back as the same
//! fields.

use forensics_core::escape::{Escaped, is_safe, truncate};
use forensics_core::logfmt::{self, Key, Value};

pub(crate) fn check(data: &[u8]) {
    let values: Vec<_> = data.split(|&b| b == 0xff).map(String::from_utf8_lossy).collect();
    let written: Vec<(String, String)> =
        values.iter().enumerate().map(|(i, value)| (format!("k{i}"), value.to_string())).collect();
    assert_eq!(logfmt::parse(&line(&written)), Ok(written));

    for value in &values {
        let plain = Escaped(value).to_string();
        assert!(plain.chars().all(is_safe), "{plain:?}");
        for max in [0, 1, 7, 300] {
            let short = truncate(&**value, max);
            assert!(short.chars().count() <= max, "{short:?}");
            assert!(value.starts_with(short.strip_suffix('…').unwrap_or(&short)), "{short:?}");
            assert!(short == *value || value.chars().count() > max);
        }
        // The value as a line: if it can be parsed, the fields are the same after writing and
        // reading.
        if let Ok(read) = logfmt::parse(value) {
            assert_eq!(logfmt::parse(&line(&read)), Ok(read));
        }
    }
}

fn line(pairs: &[(String, String)]) -> String {
    let line: Vec<String> =
        pairs.iter().map(|(key, value)| format!("{}={}", Key(key), Value(value))).collect();
    let line = line.join(" ");
    assert!(line.chars().all(is_safe), "{line:?}");
    line
}
