//! A marker file, which any user may have written. It names at most one process.

use forensics_core::marker::{Target, target};

pub(crate) fn check(data: &[u8]) {
    let of = |pid| target(data, pid).ok();
    let pids = [0, 1, 12, 123, 4100, u32::MAX];
    let targets = pids.map(of);
    let named = targets.iter().filter(|&&target| target == Some(Target::ThisProcess)).count();
    assert!(named <= 1, "{targets:?}");
    // Whether it is JSON and names a process does not depend on the pid that is compared.
    for found in targets {
        let names_process = |target| matches!(target, Some(Target::ThisProcess | Target::Other));
        assert_eq!(found.is_none(), targets[0].is_none());
        assert_eq!(names_process(found), names_process(targets[0]));
    }
}
