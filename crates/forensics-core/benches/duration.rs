//! The time to read a time span, compared with the crate systemd-duration.
//!
//! The texts are typical of unit files, and both read each of them as the same span.

#![forbid(unsafe_code)]

mod measure;

use std::hint::black_box;

use forensics_core::duration::{Timespan, parse};
use measure::{clock, in_turns, median};

const TEXTS: [&str; 8] =
    ["90s", "1min 30s", "5min", "500ms", "1h 30min", "2h", "1d 12h", "2w 3d 4h 5min 6s 7ms 8us"];
const TRIALS: usize = 2000;
/// How often each text is read in a trial, so that reading the clock does not dominate.
const OFTEN: u32 = 20;

fn main() {
    for text in TEXTS {
        let (ours, theirs) = (parse(text), systemd_duration::stdtime::parse(text));
        assert_eq!(ours.ok().and_then(Timespan::to_std), theirs.ok(), "{text}");
    }
    let all = |read: fn(&str) -> bool| {
        let per_text = clock(|| {
            for _ in 0..OFTEN {
                for text in TEXTS {
                    black_box(read(black_box(text)));
                }
            }
        });
        per_text / u64::from(OFTEN) / TEXTS.len() as u64
    };
    let [ours, theirs] = in_turns(
        TRIALS,
        [&mut || all(|text| parse(text).is_ok()), &mut || {
            all(|text| systemd_duration::stdtime::parse(text).is_ok())
        }],
    );
    measure::title("Time spans (`cargo bench -p forensics-core --bench duration`)");
    let (ours, theirs) = (median(&ours), median(&theirs));
    measure::report_ratio("a time span read", ours, "systemd-duration", theirs);
}
