//! `forensics check`

use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::Args;
use forensics_core::duration::Timespan;
use forensics_core::escape::{MAX_TEXT_CHARS, Plain, cut};
use forensics_core::json;
use forensics_core::secure_fs;
use forensics_core::systemd::{
    Alignment, DEFAULT_HEADROOM, DropIn, Finding, Manager, Severity, UnitProperties, findings,
    show_arguments,
};
use serde_json::json;

/// How long systemctl may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Longest drop-in read, in bytes.
const MAX_DROP_IN: u64 = 256 << 10;

const ALIGNED: u8 = 0;
const NOT_ALIGNED: u8 = 1;
const CANNOT_TELL: u8 = 3;

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: 0 aligned, 1 not aligned, 3 can't tell.

Example:
  forensics check gateway.service --drain 60s")]
pub(crate) struct Check {
    /// The unit; `.service` where it has no type
    unit: String,
    /// How long the service drains, such as `60s`
    #[arg(long, value_name = "T", value_parser = super::finite)]
    drain: Duration,
    /// What is to be left after that
    #[arg(long, value_name = "T", value_parser = super::finite, default_value = "30s")]
    headroom: Duration,
    /// Ask the user's manager instead of the system's
    #[arg(long)]
    user: bool,
    /// Print JSON, on one line
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(crate) fn run(&self, out: &mut dyn Write) -> io::Result<ExitCode> {
        debug_assert_eq!(DEFAULT_HEADROOM, Duration::from_secs(30));
        let manager = if self.user {
            Manager::User { uid: nix::unistd::getuid().as_raw() }
        } else {
            Manager::System
        };
        let suffix = if self.unit.contains('.') { "" } else { ".service" };
        let unit = format!("{}{suffix}", self.unit);
        let properties = match systemctl(&show_arguments(manager, &unit)) {
            Ok(output) => UnitProperties::parse(&output),
            Err(why) => {
                eprintln!("forensics: can't tell: {}", Plain(&cut(&why, MAX_TEXT_CHARS)));
                return Ok(ExitCode::from(CANNOT_TELL));
            }
        };
        let granted = properties.stop_timeout();
        let alignment = granted.map(|granted| Alignment::judge(granted, self.drain, self.headroom));
        let drop_in = alignment
            .filter(|alignment| !alignment.is_aligned())
            .and_then(|alignment| DropIn::new(&unit, manager, alignment.needed));
        let answer = Answer {
            overruled_by: drop_in.as_ref().and_then(|_| overruling(&properties)),
            findings: findings(&properties),
            unit,
            alignment,
            drop_in,
        };
        if self.json {
            writeln!(out, "{}", json::to_string(&answer.as_json())?)?;
        } else {
            answer.print(out)?;
        }
        Ok(ExitCode::from(match alignment {
            None => CANNOT_TELL,
            Some(alignment) if alignment.is_aligned() => ALIGNED,
            Some(_) => NOT_ALIGNED,
        }))
    }
}

/// What there is to say of a unit.
struct Answer {
    unit: String,
    alignment: Option<Alignment>,
    drop_in: Option<DropIn>,
    /// A file that sets the timeout and is read after the drop-in.
    overruled_by: Option<String>,
    findings: Vec<Finding>,
}

impl Answer {
    fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let unit = to_copy(&self.unit);
        match self.alignment {
            Some(alignment) => writeln!(out, "{unit}: {alignment}")?,
            None => writeln!(out, "{unit}: can't tell: systemd names no stop timeout")?,
        }
        for finding in &self.findings {
            let severity = severity(finding.severity);
            writeln!(out, "{severity}: {}", finding.what)?;
            if let Some(mend) = &finding.mend {
                writeln!(out, "  mend: {mend}")?;
            }
        }
        match (&self.drop_in, &self.overruled_by) {
            (None, _) => Ok(()),
            (Some(drop_in), None) => writeln!(
                out,
                "\nTo mend it:\n\n{drop_in}\nOr without an editor:\n\n{}",
                drop_in.script()
            ),
            (Some(drop_in), Some(file)) => writeln!(
                out,
                "\nTo mend it, in {}, which wins over what `systemctl edit` would write:\n\n{}\n{}\n\n\
                 Then: systemctl daemon-reload",
                to_copy(file),
                drop_in.section(),
                drop_in.setting(),
            ),
        }
    }

    fn as_json(&self) -> serde_json::Value {
        let micros = |span: Duration| Timespan::from(span).as_micros();
        let alignment = self.alignment;
        json!({
            "unit": self.unit,
            "aligned": alignment.map(|alignment| alignment.is_aligned()),
            "timeout_stop_us": alignment.map(|alignment| alignment.timeout_stop),
            "needed_us": alignment.and_then(|alignment| micros(alignment.needed)),
            "summary": alignment.map(|alignment| alignment.to_string()),
            "drop_in": self.drop_in.as_ref().map(|drop_in| json!({
                "edit": drop_in.edit_command(),
                "section": drop_in.section(),
                "setting": drop_in.setting(),
                "script": drop_in.script(),
                "overruled_by": self.overruled_by,
            })),
            "findings": self.findings,
        })
    }
}

/// A name that is to be copied, as it is where that is safe: units' names have backslashes in them.
fn to_copy(name: &str) -> String {
    let name = cut(name, MAX_TEXT_CHARS);
    if name.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        name.into_owned()
    } else {
        Plain(&name).to_string()
    }
}

/// The last of the files that win over a drop-in of ours, if it sets the timeout: there the mend
/// has to be made. One that cannot be read is passed over.
fn overruling(properties: &UnitProperties) -> Option<String> {
    let sets_it = |text: Vec<u8>| {
        let text = String::from_utf8_lossy(&text);
        let mut names = text.lines().filter_map(|line| Some(line.split_once('=')?.0.trim()));
        names.any(|name| matches!(name, "TimeoutStopSec" | "TimeoutSec"))
    };
    let overrules = |path: &&str| secure_fs::read(Path::new(path), MAX_DROP_IN).is_ok_and(sets_it);
    properties.late_drop_ins().filter(overrules).last().map(str::to_owned)
}

fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok",
        Severity::Unknown => "unknown",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// What systemctl prints, or why it prints nothing. Ended where it takes too long.
fn systemctl(arguments: &[String]) -> Result<String, String> {
    let mut child = Command::new("systemctl")
        .args(arguments)
        .env("LC_ALL", "C")
        .env("SYSTEMD_COLORS", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("cannot run systemctl: {e}"))?;
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err("systemctl has no output".to_owned());
    };
    let (sender, received) = mpsc::channel();
    // Read elsewhere, so that a systemctl that hangs can be ended here.
    thread::spawn(move || {
        let (mut output, mut complaint) = (Vec::new(), Vec::new());
        let read = stdout.read_to_end(&mut output).and(stderr.read_to_end(&mut complaint));
        // Nobody listens any more where it took too long.
        let _ = sender.send(read.map(|_| (output, complaint)));
    });
    let read = received.recv_timeout(ANSWER_LIMIT);
    if read.is_err() {
        // Its own child, not waited for yet, so the pid is its.
        let _ = child.kill();
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    match read {
        Err(_) => Err(format!("systemctl did not answer within {ANSWER_LIMIT:?}")),
        Ok(Err(e)) => Err(e.to_string()),
        Ok(Ok((output, _))) if status.success() => {
            Ok(String::from_utf8_lossy(&output).into_owned())
        }
        Ok(Ok((_, complaint))) => {
            Err(format!("systemctl: {}", String::from_utf8_lossy(&complaint).trim()))
        }
    }
}
