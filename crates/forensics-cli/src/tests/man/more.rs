//! What the manual pages say that `--help` does not.

/// The day of this version: set where the version is.
pub(super) const DATE: &str = "2026-11-25";

/// What a page has beyond the help: more of a description, sections of terms, other pages.
pub(super) struct More {
    /// The command's name; that of the program for the page of it all.
    pub(super) of: &'static str,
    pub(super) description: &'static [&'static str],
    pub(super) sections: &'static [(&'static str, &'static [(&'static str, &'static str)])],
    pub(super) see_also: &'static [&'static str],
}

const RECORDS: (&str, &[(&str, &str)]) = (
    "FILES",
    &[(
        "/var/lib/NAME/shutdown/*.jsonl",
        "Where a service commonly keeps its records: its record_dir, or FORENSICS_RECORD_DIR in its \
         environment, says where. One file a run, JSON Lines, readable by the service's user and root.",
    )],
);

/// In the order of their names.
pub(super) const MORE: [More; 9] = [
    More {
        of: "forensics",
        description: &[
            "A service that the Rust crate forensics-tokio guards writes a record of each run: who sent \
             the signal that stopped it, why, what each phase of its teardown took, and how it ended. \
             `last`, `list` and `show` read these records, also of a run that was killed. `check` asks \
             systemd whether it waits for as long as a service drains. `context` and `diag` look at any \
             process, `timespan` at a time span.",
            "Text that other processes wrote is escaped before it is shown. What looks like a secret in a \
             command line is shown as `***`.",
        ],
        sections: &[
            (
                "EXIT STATUS",
                &[
                    (
                        "0",
                        "What was asked for was printed. `last`: the run ended cleanly; `check`: \
                           systemd waits for long enough.",
                    ),
                    (
                        "1",
                        "`last`: the run did not end cleanly; `check`: systemd does not wait for long \
                           enough.",
                    ),
                    ("2", "The call is wrong, or what was asked for cannot be read or written."),
                    ("3", "`check`: can't tell."),
                ],
            ),
            (
                "ENVIRONMENT",
                &[
                    (
                        "NO_COLOR",
                        "Where it is set and not empty, `show` uses no colour unless told to.",
                    ),
                    (
                        "COLUMNS",
                        "The width that `show` draws to, in characters; otherwise the terminal's.",
                    ),
                    ("PATH", "Where `check` looks for systemctl(1)."),
                ],
            ),
            RECORDS,
        ],
        see_also: &["journalctl(1)", "systemctl(1)", "systemd.service(5)", "signal(7)"],
    },
    More {
        of: "check",
        description: &[
            "The unit's stop timeout, as systemctl(1) tells it, is held against the drain and what is to \
             be left after that. Where it is too short, the drop-in is printed that mends it. Other \
             settings of the unit that bear on its stop are reported as well.",
        ],
        sections: &[("ENVIRONMENT", &[("PATH", "Where systemctl(1) is looked for.")])],
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
            "Of the runs that have ended it is the one that began last; where none has, the one that \
             runs now. What is printed is one line: the outcome, the phase that it ended in, who had \
             asked it to stop, the likely reason with the evidence for it, and what to change.",
        ],
        sections: &[RECORDS],
        see_also: &["forensics-list(1)", "forensics-show(1)", "systemd.service(5)"],
    },
    More {
        of: "list",
        description: &[],
        sections: &[RECORDS],
        see_also: &["forensics-last(1)", "forensics-show(1)"],
    },
    More {
        of: "show",
        description: &[],
        sections: &[
            (
                "ENVIRONMENT",
                &[
                    (
                        "NO_COLOR",
                        "Where it is set and not empty, there is no colour unless `--color` asks \
                                  for it.",
                    ),
                    ("COLUMNS", "The width to draw to, in characters; otherwise the terminal's."),
                ],
            ),
            RECORDS,
        ],
        see_also: &["forensics-last(1)", "forensics-list(1)"],
    },
    More { of: "timespan", description: &[], sections: &[], see_also: &["systemd.time(7)"] },
];
