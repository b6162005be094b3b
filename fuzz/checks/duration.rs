//! Time spans. A parsed span is printed so that it parses to the same span, an error is one short
//! line, and parts add up.

use forensics_core::duration::{Timespan, parse, parse_stop_timeout};

pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let parsed = parse(&text);
    match &parsed {
        Ok(span) => {
            assert_ne!(span.as_micros(), Some(u64::MAX), "systemd's infinity as a number");
            let printed = span.to_string();
            // systemd prints this number of years, but cannot parse it.
            if !printed.starts_with("584542y") {
                assert_eq!(parse(&printed), Ok(*span), "printed as {span}");
            }
            let json = serde_json::to_string(span).expect("a span has a JSON form");
            assert_eq!(serde_json::from_str::<Timespan>(&json).ok(), Some(*span), "{json}");
            assert_eq!(parse(&format!(" \t{text}\r\n")), Ok(*span), "blanks around it");
            let as_stop_timeout = match span {
                Timespan::Finite(0) => Timespan::Infinite,
                span => *span,
            };
            assert_eq!(parse_stop_timeout(&text), Ok(as_stop_timeout));
        }
        Err(error) => {
            let message = error.to_string();
            assert!(!message.chars().any(char::is_control), "{message:?}");
            assert!(message.len() < 2000, "{message}");
            assert_eq!(parse_stop_timeout(&text).as_ref(), Err(error));
        }
    }
    if let Some((one, other)) = text.split_once(',') {
        sum(one, other);
    }
}

/// Two spans in one text are their sum, or too large.
fn sum(one: &str, other: &str) {
    let (Ok(Timespan::Finite(a)), Ok(Timespan::Finite(b))) = (parse(one), parse(other)) else {
        return;
    };
    match parse(&format!("{one} {other}")) {
        Ok(sum) => assert_eq!(Some(sum), a.checked_add(b).map(Timespan::Finite)),
        Err(error) if error.is_out_of_range() => {
            assert!(a.checked_add(b).is_none_or(|s| s == u64::MAX));
        }
        Err(error) => panic!("{error}"),
    }
}
