//! Any record is read in bounded memory, by each command and by the next start.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

use forensics_tests::{Program, forensics};

const MIB: usize = 1 << 20;

/// The limits, in MiB.
const START: usize = 32;
const COMMANDS: usize = 128;

/// The longest line that is read, and a little less.
const LONG: usize = MIB - 200;

/// Three bytes, which are six or more characters once they are escaped.
const BIDI: &str = "\u{202e}";

/// A record, line by line, of which `n` is the number.
type Lines = fn(n: usize) -> String;

fn event(n: usize, rest: &str) -> String {
    format!(r#"{{"v":1,"ts":"2026-11-23T10:15:00Z","mono_us":{n},"event":{rest}}}"#)
}

/// An event that is as long as one may be: `part` fills the place of `FILL`.
fn long(n: usize, rest: &str, part: &str) -> String {
    let line = event(n, rest);
    let count = LONG.saturating_sub(line.len()) / part.len();
    line.replacen("FILL", &part.repeat(count), 1)
}

/// What is special about a record, how many MiB it has at least, and its lines.
const RECORDS: [(&str, usize, Lines); 23] = [
    ("many unknown events", 4, |n| event(n, r#""x""#)),
    ("many phases", 4, |n| event(n, &format!(r#""phase_started","phase":"p{n}","offset_us":1"#))),
    ("many phases that end", 4, |n| {
        let outcome = ["ok", "failed"][n % 2];
        let rest = format!(
            r#""phase_finished","phase":"p{n}","outcome":"{outcome}","took_us":1,"offset_us":1"#
        );
        event(n, &rest)
    }),
    ("many signals", 4, |n| event(n, &signal(&format!(r#","sender_name":"{BIDI}""#)))),
    ("numbers in an unknown event", 62, |n| long(n, r#""x","a":[FILL0]"#, "0,")),
    ("objects in an unknown event", 4, |n| long(n, r#""x","a":[FILL0]"#, r#"{"":0},"#)),
    ("lists in an unknown event", 4, |n| long(n, r#""x","a":[FILL0]"#, "[[0]],")),
    ("one line of the whole size", 60, |n| {
        if n == 0 {
            event(n, &format!(r#""x","a":"{}""#, "a".repeat(60 * MIB)))
        } else {
            String::new()
        }
    }),
    ("nested brackets", 4, |n| {
        event(n, &format!(r#""x","a":{}{}"#, "[".repeat(LONG / 2), "]".repeat(LONG / 2)))
    }),
    ("nested objects", 4, |n| long(n, r#""x","a":FILL"#, r#"{"":"#)),
    ("a context of objects", 4, |n| long(n, &signal(r#","context":[FILL0]"#), r#"{"":0},"#)),
    ("a context of 2000 objects and a long line", 4, |n| {
        let context = r#"{"":0},"#.repeat(2000);
        let rest = r#","sender_name":"FILL","context":[CONTEXT0]"#.replace("CONTEXT", &context);
        long(n, &signal(&rest), "x")
    }),
    ("a long cause", 4, |n| long(n, &signal("").replace("systemd", "FILL"), BIDI)),
    ("long names of phases", 4, |n| {
        long(n, &format!(r#""phase_started","phase":"{n}FILL","group":"g","offset_us":1"#), BIDI)
    }),
    ("names of phases with 12,000 bytes", 16, |n| {
        let name = BIDI.repeat(4000);
        event(n, &format!(r#""phase_started","phase":"{n}{name}","group":"{name}","offset_us":1"#))
    }),
    ("long errors and values", 16, |n| {
        let text = BIDI.repeat(3000);
        let rest = format!(
            r#""phase_finished","phase":"p{n}","outcome":"failed","took_us":1,"offset_us":1,
            "error":"{text}","values":{{"a":"{text}"}}"#
        );
        event(n, &rest).replace('\n', "")
    }),
    ("values of objects", 4, |n| {
        let rest = r#""phase_finished","phase":"p","outcome":"failed","took_us":1,"offset_us":1,"values":{"a":[FILL0]}"#;
        long(n, rest, r#"{"":0},"#)
    }),
    ("threads of objects", 4, |n| {
        let rest = r#""wedged","what":"runtime","for_us":1,"detail":"d","threads":[FILL0]"#;
        long(n, rest, r#"{"":0},"#)
    }),
    ("units of an explanation", 4, |n| {
        let rest = r#""explained","reason":"r","detail":"d","cause":"c","basis":{"observed":{"by":"systemd"}},"units":[FILL""]"#;
        long(n, rest, r#""","#)
    }),
    ("a basis of many facts", 4, |n| {
        let rest = r#""explained","reason":"r","detail":"d","cause":"c","basis":{"inferred":{"from":[FILL""]}}"#;
        long(n, rest, r#""","#)
    }),
    ("what a witness said", 4, |n| {
        long(n, r#""witness","source":"systemd","a":[FILL0]"#, r#"{"":0},"#)
    }),
    ("a long service", 4, |n| {
        long(n, r#""run_started","service":"FILL","pid":7,"version":"0""#, BIDI)
    }),
    ("a long panic", 4, |n| {
        long(n, r#""stopped","how":"panicked","total_us":1,"panic":"FILL""#, BIDI)
    }),
];

fn signal(more: &str) -> String {
    format!(
        r#""signal","kind":"signal","signal":"SIGTERM","ordinal":1,"cause":"systemd","line":"l"{more}"#
    )
}

fn write(path: &Path, mib: usize, lines: Lines) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    let start = event(0, r#""run_started","service":"gateway","pid":7,"version":"0""#);
    writeln!(file, "{start}").unwrap();
    let mut size = 0;
    for n in 0.. {
        if size >= mib * MIB {
            break;
        }
        let line = lines(n);
        writeln!(file, "{line}").unwrap();
        size += line.len() + 1;
    }
}

/// The most memory that a command needs, in MiB.
fn peak(arguments: &[&str], record: &Path) -> usize {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peak_memory"));
    command.arg(forensics());
    for argument in arguments {
        match *argument {
            "FILE" => command.arg(record),
            "DIR" => command.arg(record.parent().unwrap()),
            other => command.arg(other),
        };
    }
    let output = command.output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse::<usize>().unwrap() >> 10
}

#[test]
fn no_record_makes_a_command_or_the_next_start_use_much_memory() {
    const CALLS: [&[&str]; 8] = [
        &["show", "FILE"],
        &["show", "--json", "FILE"],
        &["show", "--html", "-", "FILE"],
        &["last", "DIR"],
        &["last", "--json", "DIR"],
        &["list", "--json", "DIR"],
        &["list", "--stats", "DIR"],
        &["list", "--stats", "--json", "DIR"],
    ];
    let mut over = Vec::new();
    for (what, mib, lines) in RECORDS {
        let records = tempfile::tempdir().unwrap();
        let record = records.path().join("20261123T101500.123456Z-7.jsonl");
        write(&record, mib, lines);
        assert!(fs::metadata(&record).unwrap().len() <= 64 * MIB as u64, "{what}");
        let mut found = Vec::new();
        for call in CALLS {
            found.push((call.join(" "), peak(call, &record), COMMANDS));
        }
        let gateway = Program::gateway(&["--records", records.path().to_str().unwrap()]);
        let status = fs::read_to_string(format!("/proc/{}/status", gateway.program.pid())).unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
        gateway.program.kill("-TERM");
        let ended = gateway.program.wait();
        assert!(ended.stderr.contains("Previous run: outcome="), "{what}: {}", ended.stderr);
        found.push(("the start".to_owned(), kib >> 10, START));
        eprintln!("{what}: {found:?}");
        let found = found.into_iter().filter(|(_, peak, limit)| peak >= limit);
        over.extend(found.map(|(call, peak, _)| format!("{what}: {call}: {peak} MiB")));
    }
    assert_eq!(over, [""; 0]);
}

#[test]
fn a_record_that_is_too_large_is_an_error_at_once() {
    let records = tempfile::tempdir().unwrap();
    let record = records.path().join("20261123T101500.123456Z-7.jsonl");
    // Sparse: only its size is large.
    File::create(&record).unwrap().set_len(1 << 40).unwrap();
    for arguments in [&["show", "--json"][..], &["show"], &["show", "--html", "-"]] {
        let output = Command::new(forensics()).args(arguments).arg(&record).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.ends_with(": larger than 65536 KiB\n"), "{stderr}");
        assert_eq!((output.status.code(), output.stdout), (Some(2), Vec::new()));
    }
}

/// The output of a container runtime has names and labels that others chose.
#[test]
fn no_inspection_makes_last_use_much_memory() {
    let folder = tempfile::tempdir().unwrap();
    let records = folder.path().join("records");
    fs::create_dir(&records).unwrap();
    write(&records.join("20261123T101500.123456Z-7.jsonl"), 0, |_| String::new());
    let inspection = folder.path().join("inspection");
    let file = inspection.to_str().unwrap();
    for part in [r#"{"":0},"#, "[],"] {
        // As much as is read, and as many values as are read.
        for count in
            [(16 * MIB - 10) / part.len(), 200_000 / (1 + part.matches(['{', '[']).count()) - 10]
        {
            fs::write(&inspection, format!("[{}0]", part.repeat(count))).unwrap();
            let peak = peak(&["last", "DIR", "--inspect", file], &records.join("x"));
            assert!(peak < COMMANDS, "{count} times {part}: {peak} MiB");
        }
    }
}
