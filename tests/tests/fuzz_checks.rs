//! Runs the checks of the fuzz targets, in a few seconds and on stable Rust: on the committed
//! seeds, and on a few hundred mutations of them.
//!
//! The check of a target is one file in `fuzz/checks`. The target includes the same file.

use std::fs;
use std::path::{Path, PathBuf};

// A check includes the parser's file, which uses `crate::escape`.
use forensics_core::escape;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestError, TestRunner};

#[path = "../../fuzz/checks/audit.rs"]
mod audit;
#[path = "../../fuzz/checks/cgroup_path.rs"]
mod cgroup_path;
#[path = "../../fuzz/checks/duration.rs"]
mod duration;
#[path = "../../fuzz/checks/kmsg.rs"]
mod kmsg;
#[path = "../../fuzz/checks/line_escaping.rs"]
mod line_escaping;
#[path = "../../fuzz/checks/marker.rs"]
mod marker;
#[path = "../../fuzz/checks/record_reader.rs"]
mod record_reader;
#[path = "../../fuzz/checks/secret.rs"]
mod secret;
#[path = "../../fuzz/checks/stat.rs"]
mod stat;
#[path = "../../fuzz/checks/systemctl_show.rs"]
mod systemctl_show;

type Check = fn(&[u8]);

const CHECKS: [(&str, Check); 10] = [
    ("audit", audit::check),
    ("cgroup_path", cgroup_path::check),
    ("duration", duration::check),
    ("kmsg", kmsg::check),
    ("line_escaping", line_escaping::check),
    ("marker", marker::check),
    ("record_reader", record_reader::check),
    ("secret", secret::check),
    ("stat", stat::check),
    ("systemctl_show", systemctl_show::check),
];

/// How many mutations of each target's seeds are tested.
const CASES: u32 = 400;

fn listed(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let paths = listed(&fuzz().join("seeds").join(target));
    paths.iter().map(|path| fs::read(path).expect("a seed can be read")).collect()
}

/// Mutations of a seed: parts are removed, or text or parts of another seed are inserted.
fn bent(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let telling = select(b"\0\n\r\x1b \"'\\=:;,/@.-_(){}[]09\xff".to_vec());
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..6),
        prop::collection::vec(telling, 0..4),
        any::<String>().prop_map(String::into_bytes),
        select(seeds.clone()).prop_flat_map(|seed| {
            (any::<Index>(), Just(seed))
                .prop_map(|(at, seed)| seed[at.index(seed.len() + 1)..].to_vec())
        }),
    ];
    let change = (any::<Index>(), any::<Index>(), piece);
    (select(seeds), prop::collection::vec(change, 0..4)).prop_map(|(mut bytes, changes)| {
        for (one, other, piece) in changes {
            let (one, other) = (one.index(bytes.len() + 1), other.index(bytes.len() + 1));
            // Only short parts are removed, so that the seed keeps most of its form.
            let end = other.clamp(one, bytes.len().min(one + 8));
            bytes.splice(one..end, piece);
        }
        bytes
    })
}

#[test]
fn every_fuzz_target_has_a_check_and_seeds() {
    let targets = listed(&fuzz().join("fuzz_targets"));
    let targets = targets.iter().filter_map(|path| path.file_stem()?.to_str());
    assert_eq!(targets.collect::<Vec<_>>(), CHECKS.map(|(target, _)| target));
    for (target, _) in CHECKS {
        assert!(seeds(target).len() >= 8, "{target}");
    }
}

#[test]
fn every_seed_passes_the_check_of_its_target_and_of_all_others() {
    for (target, _) in CHECKS {
        for seed in seeds(target) {
            CHECKS.iter().for_each(|(_, check)| check(&seed));
        }
    }
}

#[test]
fn mutations_of_the_seeds_pass_too() {
    for (target, check) in CHECKS {
        let mut runner = TestRunner::new(Config { cases: CASES, ..Config::default() });
        let passed = runner.run(&bent(seeds(target)), |bytes| {
            check(&bytes);
            Ok(())
        });
        if let Err(TestError::Fail(why, bytes)) = passed {
            panic!("{target} on b\"{}\": {why}", bytes.escape_ascii());
        }
        assert_eq!(passed, Ok(()), "{target}");
    }
}
