//! What the manual pages say that `--help` does not.

/// The day of this version. Set it together with the version.
pub(super) const DATE: &str = "2026-11-25";

/// What a page has beyond the help: more of a description, sections of terms, other pages.
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
        "Where a service commonly keeps its records. Its record_dir, or FORENSICS_RECORD_DIR in its \
         environment, sets the folder. One file per run, JSON Lines, readable by the service's user and \
         root.",
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
                        "If it is set and not empty, `show` uses no colour, except with `--color always`.",
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
            "Compares the unit's stop timeout, as systemctl(1) prints it, with the drain and the time that \
             must be left after that. If it is too short, prints a drop-in that makes it long enough. \
             Also reports other settings of the unit that matter for its stop.",
        ],
        sections: &[("ENVIRONMENT", &[("PATH", "Where to look for systemctl(1).")])],
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
            "The last run is the one that began last of those that have ended. If none has ended, it is \
             the one that runs now. One line is printed: the outcome, the phase that the run ended in, \
             who asked it to stop, the likely reason with the evidence for it, and what to change.",
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
                        "If it is set and not empty, there is no colour, except with `--color always`.",
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
