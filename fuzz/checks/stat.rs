//! `/proc/PID/stat`, in which a process chooses its name: the two parsers of it agree, and no name
//! leaves its field.

use forensics_core::escape::{Quoted, fields};
use forensics_core::process::ProcessSummary;

#[path = "../../crates/forensics-core/src/diagnostic/stat.rs"]
mod by_hand;

use by_hand::Stat;

pub(crate) fn check(data: &[u8]) {
    let summary = ProcessSummary::from_stat(7, data);
    assert_eq!(summary.pid, 7, "the pid is the one asked for");
    let shown = summary.to_string();
    assert!(!shown.chars().any(char::is_control), "{shown:?}");
    let name = format!("{}(7)", summary.name.as_deref().unwrap_or("?"));
    assert_eq!(fields(&format!("k={shown}")), Ok(vec![("k".to_owned(), name)]));
    let json = serde_json::to_string(&summary).expect("a summary has a JSON form");
    assert_eq!(serde_json::from_str::<ProcessSummary>(&json).ok(), Some(summary.clone()));

    let Some(stat) = Stat::parse(data) else { return };
    let _ = (stat.pid, stat.kernel_thread, stat.cpu, stat.rss, Quoted(&stat.name()).to_string());
    if summary.ppid.is_some() {
        let (name, start) = (summary.name.unwrap_or_default(), summary.start_time);
        let both = (Some(stat.ppid), Some(stat.state), Some(stat.start));
        assert_eq!(both, (summary.ppid, summary.state, start));
        // The one by hand cuts longer names.
        assert!(name.len() > 32 || name == stat.name(), "{name:?} is not {:?}", stat.name());
    }
}
