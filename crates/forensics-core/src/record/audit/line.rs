//! The text of the audit log, one record a line: `type=SYSCALL msg=audit(1795878157.058:10): …`.
//!
//! The kernel writes `NAME=VALUE`, separated by spaces. A value that a process chose is in quotes if
//! it is plain, otherwise in hexadecimal, so it cannot end the value or the line
//! (`audit_log_n_untrustedstring`). Only the types of record that the kernel itself writes are read.
//! Programs can write records of other types.

use serde_json::Value;

use crate::capture::Signal;
use crate::process::joined_cmdline;
use crate::record::Utc;

/// The kernel cuts a command line at 128 bytes (`MAX_PROCTITLE_AUDIT_LEN`).
const CUT_AT: usize = 127;

/// auditd puts this before the names that it has looked up itself (`log_format = ENRICHED`).
const ENRICHED: char = '\x1d';

/// The numbers of the calls that send a signal, by architecture (`AUDIT_ARCH_*`, in hexadecimal):
/// `kill rt_sigqueueinfo tkill pidfd_send_signal tgkill rt_tgsigqueueinfo`. The key of our rule says
/// that a record is about one of them, but not which argument is the signal. Compared with
/// `ausyscall(8)`.
pub(super) const CALLS: [(&str, [u32; 6]); 4] = [
    ("c000003e", [62, 129, 200, 424, 234, 297]),  // x86_64
    ("40000003", [37, 178, 238, 424, 270, 335]),  // i386
    ("c00000b7", [129, 138, 130, 424, 131, 240]), // aarch64
    ("40000028", [37, 178, 238, 424, 268, 363]),  // arm
];

/// What all records of an event have in common. Sorts by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EventId {
    /// The kernel's clock for this has a resolution of up to 10 ms.
    pub(super) at: Utc,
    pub(super) serial: u64,
}

/// How a call names its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Addressed {
    /// A process, a process group or all processes, by this number in the sender's pid namespace.
    Process(i32),
    /// A thread. `is_main` is true if it is certain that this is the main thread.
    Thread { is_main: bool, id: i32 },
    /// A descriptor.
    Descriptor,
}

/// A call that sends a signal: `SYSCALL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) signal: Signal,
    pub(super) to: Addressed,
    /// The third and the fourth argument.
    pub(super) label: [u32; 2],
    pub(super) succeeded: bool,
    pub(super) pid: u32,
    pub(super) parent_pid: Option<u32>,
    pub(super) uid: u32,
    pub(super) effective_uid: u32,
    pub(super) login_uid: Option<u32>,
    pub(super) login: Option<String>,
    pub(super) tty: Option<String>,
    pub(super) name: Option<String>,
    pub(super) exe: Option<String>,
}

/// A process that a signal was sent to: `OBJ_PID`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// In the first pid namespace.
    pub(super) pid: u32,
    pub(super) uid: u32,
    /// The name of the thread that the call named, usually the main thread.
    pub(super) name: String,
}

/// A record of one of the types that are of use here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// `None` for another call.
    Call(Option<Box<Call>>),
    Target(Target),
    Cmdline(Option<String>),
    End,
}

/// Reads a line of auditd's log. `None` for a record of another type, and for a line that is not as
/// the kernel writes it.
pub(super) fn parse(line: &str) -> Option<(EventId, Line)> {
    // `name_format =` of auditd.conf(5).
    let line = match line.strip_prefix("node=") {
        Some(rest) => rest.split_once(' ')?.1,
        None => line,
    };
    let (kind, rest) = line.strip_prefix("type=")?.split_once(" msg=audit(")?;
    let (stamp, body) = rest.split_once("):")?;
    let (time, serial) = stamp.split_once(':')?;
    let (seconds, millis) = time.split_once('.')?;
    let millis = Some(millis).filter(|digits| digits.len() == 3)?.parse::<u16>().ok()?;
    let at_us = seconds.parse::<u32>().ok().map(i64::from)? * 1_000_000 + i64::from(millis) * 1000;
    let id = EventId { at: Utc::from_micros(at_us)?, serial: serial.parse().ok()? };
    Some((id, body_of(kind, body)?))
}

/// Reads a line of `journalctl -o json`. journald writes the fields that begin with an underscore;
/// programs cannot.
pub(super) fn parse_journal(line: &str) -> Option<(EventId, Line)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| message[name].as_str();
    if field("_TRANSPORT") != Some("audit") {
        return None;
    }
    let id = EventId {
        at: Utc::from_micros(field("_SOURCE_REALTIME_TIMESTAMP")?.parse().ok()?)?,
        serial: field("_AUDIT_ID")?.parse().ok()?,
    };
    let kind = field("_AUDIT_TYPE_NAME")?;
    // The text begins with the type again.
    let body = field("MESSAGE")?.strip_prefix(kind)?;
    Some((id, body_of(kind, body)?))
}

fn body_of(kind: &str, body: &str) -> Option<Line> {
    let field = |name: &str| {
        let mut fields = body.split([' ', ENRICHED]).filter_map(|field| field.split_once('='));
        fields.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    Some(match kind {
        "SYSCALL" => Line::Call(call(&field).map(Box::new)),
        "OBJ_PID" => Line::Target(Target {
            pid: field("opid")?.parse().ok()?,
            uid: field("ouid")?.parse().ok()?,
            name: text(field("ocomm")?)?,
        }),
        "PROCTITLE" => Line::Cmdline(field("proctitle").and_then(bytes).and_then(|raw| {
            let max = if raw.len() < CUT_AT { raw.len() } else { CUT_AT - 1 };
            joined_cmdline(&raw, max)
        })),
        "EOE" => Line::End,
        _ => return None,
    })
}

fn call<'a>(field: &impl Fn(&str) -> Option<&'a str>) -> Option<Call> {
    let number: u32 = field("syscall")?.parse().ok()?;
    let (_, calls) = CALLS.iter().find(|(arch, _)| Some(*arch) == field("arch"))?;
    let which = calls.iter().position(|&call| call == number)?;
    // The arguments are registers in hexadecimal, and pids and signals are their low 32 bits.
    let argument = |name| {
        let register = u64::from_str_radix(field(name)?, 16).ok()?;
        Some((register & u64::from(u32::MAX)) as u32 as i32)
    };
    let first = argument("a0")?;
    let (to, signal) = match which {
        0 | 1 => (Addressed::Process(first), argument("a1")?),
        2 => (Addressed::Thread { is_main: false, id: first }, argument("a1")?),
        3 => (Addressed::Descriptor, argument("a1")?),
        _ => {
            let is_main = argument("a1")? == first;
            (Addressed::Thread { is_main, id: first }, argument("a2")?)
        }
    };
    let id = |name| field(name).and_then(|id| id.parse().ok()).filter(|&id| id != u32::MAX);
    let login = field("AUID").and_then(text).filter(|name| name != "unset" && !name.contains('?'));
    Some(Call {
        signal: Signal::from_raw(signal),
        to,
        label: ["a2", "a3"].map(|name| argument(name).map_or(0, i32::cast_unsigned)),
        succeeded: field("success") == Some("yes"),
        pid: id("pid")?,
        parent_pid: id("ppid"),
        uid: id("uid")?,
        effective_uid: id("euid")?,
        login_uid: id("auid"),
        login: login.filter(|name| !name.starts_with("unknown")),
        tty: field("tty").filter(|tty| *tty != "(none)").map(str::to_owned),
        name: field("comm").and_then(text),
        exe: field("exe").and_then(text),
    })
}

/// A value that a process chose: in quotes, or in hexadecimal. `None` if the kernel had none.
fn bytes(value: &str) -> Option<Vec<u8>> {
    if let Some(quoted) = value.strip_prefix('"') {
        return quoted.strip_suffix('"').map(|plain| plain.as_bytes().to_vec());
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let pairs = value.as_bytes().chunks(2);
    (value.len().is_multiple_of(2) && !value.is_empty()).then(|| pairs.map(byte).collect())?
}

fn text(value: &str) -> Option<String> {
    bytes(value).map(|raw| String::from_utf8_lossy(&raw).into_owned())
}
