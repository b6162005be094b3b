//! The text of the manual pages that is not in `--help`.

/// The date of this version. Set it together with the version.
pub(super) const DATE: &str = "2026-11-25";

/// The parts of a page that are not in the help: more description, lists of terms, related pages.
pub(super) struct More {
    /// The command's name. The program's name for the page of the program.
    pub(super) of: &'static str,
    pub(super) description: &'static [&'static str],
    pub(super) sections: &'static [(&'static str, &'static [(&'static str, &'static str)])],
    pub(super) see_also: &'static [&'static str],
}

const RECORDS: (&str, &[(&str, &str)]) = (
    "FILES",
    &[(
        "/var/lib/NAME/shutdown/*.jsonl",
        "The usual folder for the records of a service. It is set by record_dir in the program, or \
         by FORENSICS_RECORD_DIR in its environment. There is one JSON Lines file per run, readable \
         by the service's user and root.",
    )],
);

/// The environment of the commands whose output differs on a terminal.
const TERMINAL: [(&str, &str); 3] = [
    ("NO_COLOR", "If it is set and not empty, there is no color, except with `--color always`."),
    ("TERM", "If it is `dumb`, there is no color, except with `--color always`."),
    ("COLUMNS", "The width of the output, in characters. By default the terminal's."),
];

/// In the order of their names.
pub(super) const MORE: [More; 10] = [
    More {
        of: "forensics",
        description: &[
            "A service that uses the Rust crate forensics-tokio writes a record of each run: who sent \
             the signal that stopped it, why, how long each phase of its teardown took, and how it \
             ended. `last`, `list` and `show` read these records, even after a SIGKILL. `check` asks \
             systemd whether its stop timeout is long enough for a service's drain. `context` and \
             `diag` examine any process, and `timespan` reads time spans.",
            "Text from other processes is escaped before it is shown. Whatever looks like a secret in a \
             command line is shown as `***`.",
        ],
        sections: &[
            (
                "EXIT STATUS",
                &[
                    (
                        "0",
                        "Success. `last`: the run ended cleanly; `check`: systemd waits long enough; \
                         `audit`: the rule is in effect.",
                    ),
                    (
                        "1",
                        "`last`: the run did not end cleanly; `check`: systemd does not wait long \
                           enough; `audit`: the rule is not in effect.",
                    ),
                    ("2", "The arguments are invalid, or a file cannot be read or written."),
                    ("3", "`check`, `audit`: can't tell."),
                ],
            ),
            (
                "ENVIRONMENT",
                &[
                    (
                        "NO_COLOR",
                        "If it is set and not empty, `last`, `list` and `show` use no color, except with \
                         `--color always`.",
                    ),
                    (
                        "COLUMNS",
                        "The width of the output of `last`, `list` and `show`, in characters. By default the \
                         terminal's.",
                    ),
                    (
                        "PATH",
                        "More folders in which `check` looks for systemctl(1), after those of the system.",
                    ),
                ],
            ),
            RECORDS,
        ],
        see_also: &["journalctl(1)", "systemctl(1)", "systemd.service(5)", "signal(7)"],
    },
    More {
        of: "audit",
        description: &[
            "The kernel tells no process who sent it SIGKILL. Its audit log can have that, for each call \
             that sends a signal: the sender, its program and user, the user who logged in, its \
             terminal and its parent. `forensics last` and the next start of a service read it, if \
             they have the right to do so.",
            "The rule is one line for 64-bit and, where the machine runs them, one for 32-bit programs. \
             --remove unloads these lines only. --install does not turn auditing on. Rules that are \
             loaded already are kept, and so is a file that was changed since.",
            "--follow reads the kernel's messages beside auditd or without it, in the first network \
             namespace of the machine. It writes only the events of calls that send signals, in the \
             format of auditd. A file of more than 16 MiB is renamed to FILE.1; four older files are \
             kept.",
        ],
        sections: &[(
            "FILES",
            &[
                (
                    "/etc/audit/rules.d/shutdown-forensics.rules",
                    "The rule, as --install writes it. augenrules(8) loads it at every boot.",
                ),
                (
                    "/var/log/audit/audit.log",
                    "The log of auditd, which is read with its rotated files. Usually only root may \
                     read it; `log_group =` in auditd.conf(5) names a group that may, too.",
                ),
                (
                    "/var/log/shutdown-forensics/audit.log",
                    "A file for --follow. It is read as well.",
                ),
            ],
        )],
        see_also: &[
            "forensics-last(1)",
            "auditctl(8)",
            "auditd(8)",
            "ausearch(8)",
            "journald.conf(5)",
        ],
    },
    More {
        of: "check",
        description: &[
            "Compares the unit's stop timeout, as systemctl(1) prints it, with the drain plus the \
             headroom. If it is too short, prints a drop-in that makes it long enough. Also reports \
             other settings of the unit that affect its stop.",
            "The settings include the signals that systemd sends: KillSignal=, RestartKillSignal=, \
             FinalKillSignal=, and what ExecReload= or Type=notify-reload sends. Which signals the \
             service's guard handles is in its program, so say so with --signals if they are not the \
             default ones.",
        ],
        sections: &[(
            "ENVIRONMENT",
            &[(
                "PATH",
                "More folders in which to look for systemctl(1), after those of the system.",
            )],
        )],
        see_also: &["systemctl(1)", "systemd.kill(5)", "systemd.service(5)", "systemd.time(7)"],
    },
    More { of: "completions", description: &[], sections: &[], see_also: &["bash(1)"] },
    More {
        of: "context",
        description: &[],
        sections: &[],
        see_also: &["forensics-diag(1)", "proc(5)"],
    },
    More {
        of: "diag",
        description: &[],
        sections: &[],
        see_also: &["forensics-context(1)", "proc(5)"],
    },
    More {
        of: "last",
        description: &[
            "Of the runs that have ended, the last one to start is shown. If none has ended, the running \
             one is shown. Printed are the outcome, the phase that the run ended in, who asked it to \
             stop, the reason with the evidence for it and what that rests on, and what to change.",
            "The outcome is clean, timed_out, cut_short, failed, forced, panicked or abandoned if the run \
             recorded its end, and killed_after_teardown if systemd says that a signal ended it after \
             that. It is killed_in_phase, killed_before_teardown or vanished if the run did not record its \
             end; exited if a witness says that it exited; rebooted if the machine has booted since; and \
             running if it is alive. It is maybe_alive if the record has no end and this machine cannot \
             see whether the run is alive, as for a run of another machine on a shared volume. It is \
             unknown if a newer version wrote a word for its end.",
        ],
        sections: &[
            (
                "ENVIRONMENT",
                &[
                    (
                        "SERVICE_RESULT, EXIT_CODE, EXIT_STATUS, INVOCATION_ID",
                        "In ExecStopPost=, set by systemd: how the unit and its main process ended. \
                         See systemd.exec(5).",
                    ),
                    TERMINAL[0],
                    TERMINAL[1],
                    TERMINAL[2],
                ],
            ),
            RECORDS,
        ],
        see_also: &[
            "forensics-list(1)",
            "forensics-show(1)",
            "journalctl(1)",
            "podman-inspect(1)",
            "systemd.service(5)",
        ],
    },
    More {
        of: "list",
        description: &[],
        sections: &[("ENVIRONMENT", &TERMINAL), RECORDS],
        see_also: &["forensics-last(1)", "forensics-show(1)"],
    },
    More {
        of: "show",
        description: &[],
        sections: &[("ENVIRONMENT", &TERMINAL), RECORDS],
        see_also: &["forensics-last(1)", "forensics-list(1)"],
    },
    More { of: "timespan", description: &[], sections: &[], see_also: &["systemd.time(7)"] },
];
