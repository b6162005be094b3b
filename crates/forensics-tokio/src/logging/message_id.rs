//! The ids of our events in the journal, for `journalctl MESSAGE_ID=…` and the catalog.

/// The events that this crate emits: the name in `tracing`, and the `MESSAGE_ID=`. Both never
/// change. `docs/shutdown-forensics.catalog` explains them to `journalctl -x`.
pub const MESSAGE_IDS: &[(&str, &str)] = &[
    ("shutdown_context", "2eb97ec889c2526a26536dcddde71e1c"),
    ("stop_explained", "0465a81a724266e65afc41522b58d47f"),
    ("stop_unexplained", "f15ae68aed6d1f6939420e865e79dbbe"),
    ("later_signal", "0f8f18c9a97d6fcf1a2bb44731ab2d85"),
    ("more_signals", "ed236a0fca8acfd7599e7b44a71f68b9"),
    ("shutdown_hangs", "7fa331ef3b17974666d4f3a497efaf9c"),
    ("shutdown_forced", "058f8f3060dbdd7dee70e532554221ee"),
    ("impossible_reserves", "d882f412566a3a594e4798aeae18ffa1"),
    ("lead_started", "af6802f4954c4d0e9a795ea4f48ca3e2"),
    ("lead_ended", "d3c11b1360e741ddbdbfe1d98f6e38f3"),
    ("teardown_started", "aaba243b24e554091387dc488eca20f6"),
    ("deadline_moved", "5b3f0c9e7d1a4e0c9d6e2f7a81c4b35d"),
    ("configured", "648041b9d5ef4fa79b9fcf8914521063"),
    ("not_a_setting", "0d9712b5a44a4e8dacff7576c3cd6eef"),
    ("previous_run", "6a5e678f8045fb104018c68892d0631b"),
    ("not_recorded", "0a7b6de199db11852f8673bb9dbc5678"),
    ("previous_unreadable", "5d0b6f2f6f0c4a55a6a1a5d2f0b3c6e1"),
    ("record_dir_shared", "c3f4b8b1d0a14fd5b7a3e9cb6a2d7f08"),
    ("records_not_removed", "a3fb74d26f2c4ffaa2e91faff0160402"),
    ("record_restored", "8e2a4c7d95bb4a0f9b61d3f7e05c1a94"),
    ("no_termination_message", "79691aee3493403c8f8952df66d54782"),
    ("not_notified", "dc7adc8600a34bf196c74ea06e1a20ef"),
    ("watchdog_not_fed", "b49a243c5d1bded38684faa179a08e93"),
    ("stop_timeout_extended", "af7da4a35570c4a16d6a403545aeeaef"),
    ("environment_not_trusted", "218d7eec605a43a1bbd1e7dac60a3242"),
    ("hangup_ignored", "0019aae87aa0332b61c5cc8c3322bdf5"),
    ("signal_unheard", "7696ec37364540ebb314d21201cc159a"),
    ("signal_shared", "161b8d1d1ecc446d9be6ad3437902f6f"),
    ("signal_unblocked", "9682d4848e0c498783ac3c34bfa8faf4"),
    ("broken_pipes_kill", "84bb286a62474a89b57326d7daad9830"),
    ("shell_is_process_one", "14fecf9f9e2b4367acf54a3058bd8bb5"),
    ("unit_signal", "0dff04a9a40e4d398ba8b074ad7775f2"),
    ("no_low_latency_capture", "39ee97ce4e6aedadf09c05de99fe2c56"),
    ("registration_error", "a60908946c715635aecf174e0311c5c1"),
    ("service_failed", "8af7b4c00b384437b249698df6754038"),
    ("abandoned", "5113a5795aa445608f6d41d05078bdc3"),
    ("panicked", "717202c469c745e68eb6f19f3ee4d70a"),
    ("service_dropped", "c874fc401d550f3a8063ae7c8709e6cf"),
    ("no_diagnostic_log", "4f1d0c6a2e8b4b7c9a35d86e71f0b2d3"),
    ("diagnostic_finished", "8e07d22fc9d66d9200505d909d7dc94e"),
    ("diagnostic_elsewhere", "bfc7a3245b278e9d84772d348ea832d1"),
    ("diagnostic_failed", "cc32bd41e558ac9a8e29222f5ebecfaa"),
    ("diagnostic_left_behind", "8c0efc7e2c32a127e2ff9b4334ad9ca2"),
    ("stop_timeout_short", "afd796d4157cdb8c0ca053868f2b590b"),
    ("platform_timeout_short", "2e578172dbf849618ab10e3391ddedce"),
    ("stop_timeout_aligned", "9104d5dc14570b28c1ddc0534a89a897"),
    ("stop_timeout_unknown", "1e7b517d4e207fc5089ef93a6e5fecdf"),
    ("phase_started", "92d5b0da1ba1017395b1506604020cfb"),
    ("phase_still_running", "ad73dda661515c9b7820e159a870e7ed"),
    ("phase_waits", "a9199d6dbbba41318605d447857e7bee"),
    ("phase_finished", "2588488d1cb4f93d82ca08d562dfa305"),
    ("shutdown_complete", "753f960e984f3a0413727df2082371e1"),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_event_has_a_unique_id_and_nothing_else_has_one() {
        let events = include_str!("../events.rs");
        let after = |level: &'static str| events.split(level).skip(1);
        let levels = ["debug(", "info(", "warn(", "error(", "$level("];
        let names = levels.into_iter().flat_map(after);
        let named: HashSet<&str> = names
            .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next())
            .collect();
        let listed: HashSet<&str> = MESSAGE_IDS.iter().map(|(name, _)| *name).collect();
        assert_eq!(named, listed);
        let ids: HashSet<&str> = MESSAGE_IDS.iter().map(|(_, id)| *id).collect();
        assert_eq!(ids.len(), MESSAGE_IDS.len());
        let is_id = |id: &&str| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(ids.iter().all(is_id));
    }

    #[test]
    fn the_catalog_explains_every_id() {
        let catalog = include_str!("../../docs/shutdown-forensics.catalog");
        let explained: Vec<&str> =
            catalog.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        let ids: Vec<&str> = MESSAGE_IDS.iter().map(|(_, id)| *id).collect();
        assert_eq!(explained, ids);
    }
}
