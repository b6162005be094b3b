//! A marker file, which anybody may have written: at most one process is meant by it.

use forensics_core::marker::{Target, target};

pub(crate) fn check(data: &[u8]) {
    let of = |pid| target(data, pid).ok();
    let pids = [0, 1, 12, 123, 4100, u32::MAX];
    let targets = pids.map(of);
    let meant = targets.iter().filter(|&&target| target == Some(Target::ThisProcess)).count();
    assert!(meant <= 1, "{targets:?}");
    // Whether it is JSON, and names anybody, is no matter of who asks.
    for found in targets {
        let names_somebody = |target| matches!(target, Some(Target::ThisProcess | Target::Other));
        assert_eq!(found.is_none(), targets[0].is_none());
        assert_eq!(names_somebody(found), names_somebody(targets[0]));
    }
}
