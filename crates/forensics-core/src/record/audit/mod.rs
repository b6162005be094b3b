//! Who sent a signal, by the kernel's audit log.
//!
//! The kernel tells a process who sent it a signal that it handles, but not who sent SIGKILL. The
//! audit log has both, if a rule for the calls that send signals is loaded (`forensics audit`). An
//! event of the log has a record of the call, one for each process that it named, and one with the
//! sender's command line.
//!
//! [`AuditSearch`] reads the lines of a log in their order, and holds a limited number of events at a
//! time. An event counts only if it is certainly about the process of the run:
//!
//! - The log has pids of the machine's first pid namespace. A run in another namespace does not know
//!   its own pid there. So each run sends itself the signal 0 when it begins its record. That event
//!   has both pids, and a label made from the time of the record's first line.
//! - The name and the user are those of the run.
//! - The event is after the start of the run, and a SIGKILL is not before the last event of the
//!   record. No event counts after one that shows that another run has the pid now.
//! - The call succeeded, and the kernel did not ignore the signal.

mod line;
mod logs;

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::unistd::{Uid, User, getpid};
use serde::{Deserialize, Serialize};

use self::line::{Addressed, Call, EventId, Line, Target, parse, parse_journal};
use super::post_mortem::MAX_SHOWN;
use super::summary::Summary;
use super::{Digest, SignalEvent, SignalKind, Utc};
use crate::capture::{Signal, signal_itself};
use crate::escape::{Escaped, MAX_NAME_CHARS, truncate};

use self::logs::search_logs;

/// The key of our rule.
pub const AUDIT_KEY: &str = "shutdown_forensics";

/// The logs that are searched by default: that of auditd, and one for `forensics audit --follow`.
pub const AUDIT_LOGS: [&str; 2] =
    ["/var/log/audit/audit.log", "/var/log/shutdown-forensics/audit.log"];

/// How many records the journal is asked for at most, the newest ones. They have about 700 bytes each.
const MAX_JOURNAL: usize = 1000;

/// The inode of the first pid namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
const FIRST_PID_NAMESPACE: u64 = 4_026_531_836;

/// How many events can be incomplete at a time. The records of an event follow each other, except
/// for those of the other CPUs.
const MAX_OPEN: usize = 64;

/// How far apart two instants may be and still count as the same.
const SLACK: i64 = super::summary::SLACK_US.cast_signed();

/// The length of a process's name, in bytes.
const MAX_COMM: usize = 15;

/// By how much the logged time of an event can be too early. It is the time of the last tick of the
/// kernel's clock, of which there are at least 100 a second.
const TICK_US: i64 = 20_000;

/// How long a signal of an unknown process can take until it is handled.
const DELIVERY_US: i64 = 1_000_000;

/// The end of a run may not be in the log yet if its last event is at most this long ago.
const RECENT_US: i64 = 10_000_000;

const SIGKILL: Signal = Signal::from_raw(9);

/// A signal and its sender, as the audit log reports them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentSignal {
    /// The signal's name, such as `SIGKILL`.
    pub signal: String,
    /// When it was sent, to the resolution of the kernel's clock, up to 10 ms.
    pub sent: Utc,
    /// The sender, in the first pid namespace.
    pub sender_pid: u32,
    /// Its parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_parent_pid: Option<u32>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_name: Option<String>,
    /// The path of its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_exe: Option<String>,
    /// Its real user id.
    pub sender_uid: u32,
    /// The id of the user who logged in, also after su(1) and sudo(8); absent if there was no login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_login_uid: Option<u32>,
    /// The name of that user, if auditd or the reader of the log knew it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_login: Option<String>,
    /// Its terminal, such as `pts1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_tty: Option<String>,
    /// The start of its command line. Secrets are hidden.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_cmdline: Option<String>,
}

impl SentSignal {
    /// Looks up the name of the user who logged in (getpwuid(3)), which may block.
    fn name_login(&mut self) {
        if let (None, Some(uid)) = (&self.sender_login, self.sender_login_uid) {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            self.sender_login = user.map(|user| user.name);
        }
    }

    fn new(id: EventId, call: Call, cmdline: Option<String>) -> Self {
        let cut = |text: Option<String>| text.map(|text| truncate(text, MAX_NAME_CHARS));
        Self {
            signal: call.signal.to_string(),
            sent: id.at,
            sender_pid: call.pid,
            sender_parent_pid: call.parent_pid,
            sender_name: cut(call.name),
            sender_exe: cut(call.exe),
            sender_uid: call.uid,
            sender_login_uid: call.login_uid,
            sender_login: cut(call.login),
            sender_tty: cut(call.tty),
            sender_cmdline: cmdline,
        }
    }
}

/// `SIGKILL sent by kill(6807), /usr/bin/kill, uid 0, login uid alice, tty pts1, parent 6764`, with
/// foreign text escaped.
impl Display for SentSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text: &str| Escaped(&truncate(text, MAX_SHOWN)).to_string();
        let name = shown(self.sender_name.as_deref().unwrap_or("?"));
        let (signal, pid, uid) = (shown(&self.signal), self.sender_pid, self.sender_uid);
        write!(f, "{signal} sent by {name}({pid})")?;
        if let Some(exe) = &self.sender_exe {
            write!(f, ", {}", shown(exe))?;
        }
        write!(f, ", uid {uid}")?;
        match (&self.sender_login, self.sender_login_uid) {
            (Some(login), _) => write!(f, ", login uid {}", shown(login))?,
            (None, Some(uid)) => write!(f, ", login uid {uid}")?,
            (None, None) => {}
        }
        if let Some(tty) = &self.sender_tty {
            write!(f, ", tty {}", shown(tty))?;
        }
        self.sender_parent_pid.map_or(Ok(()), |parent| write!(f, ", parent {parent}"))
    }
}

/// What is searched for: the SIGKILL that ended a run, and the first signal that it got, if its
/// record does not name the sender.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    /// In the run's own pid namespace.
    pid: u32,
    /// In the first one; `None` if that is not known.
    host_pid: Option<u32>,
    name: String,
    exe: Option<String>,
    uid: Option<u32>,
    started_us: i64,
    /// The last event of the run, by the wall clock.
    last_us: i64,
    /// Whether the run may have been killed.
    killed: bool,
    asked: Option<Asked>,
}

/// A signal whose sender the record does not name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    signal: String,
    /// The pid and the user of the sender, as the kernel reported them; `None` if the process is
    /// outside of the run's pid namespace, or if it wrote its pid itself.
    sender: Option<(u32, u32)>,
    /// When the run recorded it.
    at_us: i64,
}

impl Asked {
    fn of(signal: &SignalEvent, at: Utc, in_first_namespace: bool) -> Option<Self> {
        if signal.kind != SignalKind::Signal || signal.sender_name.is_some() {
            return None;
        }
        let (pid, uid) = (signal.sender_pid?, signal.sender_uid?);
        let is_known = in_first_namespace && signal.cause != "unverified";
        if is_known && pid == 0 {
            return None;
        }
        let sender = is_known.then_some((pid, uid));
        Some(Self { signal: signal.signal.clone()?, sender, at_us: at.micros() })
    }
}

impl AuditQuery {
    /// What the audit log can tell about a run. `killed` says whether the run may have been killed.
    /// `None` if the record lacks nothing that the log could tell, or does not name the process.
    pub fn of(record: &Digest, killed: bool) -> Option<Self> {
        let (start, run) = (&record.start, Summary::of(record));
        let program = || start.exe.as_deref()?.rsplit('/').next().map(str::to_owned);
        let name = start.process_name.clone().or_else(program)?;
        let in_first_namespace = start.pid_namespace == Some(FIRST_PID_NAMESPACE);
        let first = run.asked.zip(record.end.asked_at);
        let asked = first.and_then(|((_, signal), at)| Asked::of(signal, at, in_first_namespace));
        // What the record has already is not searched for again.
        let asked = asked.filter(|asked| run.sent(&asked.signal).is_none());
        let killed = killed && run.sent("SIGKILL").is_none();
        (killed || asked.is_some()).then(|| Self {
            pid: start.pid,
            host_pid: if in_first_namespace { Some(start.pid) } else { start.host_pid },
            name: comm(&name),
            exe: start.exe.clone(),
            uid: start.uid,
            started_us: record.started.micros(),
            last_us: run.last.micros(),
            killed,
            asked,
        })
    }

    /// Whether the run has recorded something in the last seconds.
    pub fn is_recent(&self) -> bool {
        Utc::now().micros() - self.last_us < RECENT_US
    }

    /// The earliest time of an event that matters. It is that of the start if the pid in the first
    /// namespace must be found.
    pub fn since(&self) -> Option<Utc> {
        let start_us = self.started_us - SLACK;
        let end_us =
            self.asked.as_ref().map_or(self.last_us, |asked| asked.at_us.min(self.last_us));
        Utc::from_micros(if self.host_pid.is_some() {
            start_us.max(end_us - SLACK - DELIVERY_US)
        } else {
            start_us
        })
    }
}

/// Searches the logs at these paths, in this order, until one has an answer. `None` if none of them can
/// be read. This reads files, which may block.
pub fn senders_in(query: &AuditQuery, logs: &[&Path]) -> Option<Vec<SentSignal>> {
    let mut answer = None;
    for log in logs {
        let mut search = AuditSearch::new(query.clone());
        if search_logs(&mut search, log, query.since()).is_ok() {
            let mut found = search.finish();
            found.iter_mut().for_each(SentSignal::name_login);
            answer = Some(found);
        }
        if answer.as_ref().is_some_and(|found| !found.is_empty()) {
            break;
        }
    }
    answer
}

/// Reads what journalctl(1) printed for [`audit_journal_arguments`].
pub fn senders_in_journal(query: &AuditQuery, output: &str) -> Vec<SentSignal> {
    let mut search = AuditSearch::new(query.clone());
    output.lines().for_each(|line| search.journal_line(line));
    let mut found = search.finish();
    found.iter_mut().for_each(SentSignal::name_login);
    found
}

/// Sends this process the signal 0 as the start of the run whose record begins at this time. In the
/// audit log, that shows the pid of the process in the first pid namespace, and since when it has been
/// the pid of this process.
///
/// The label is the time of this record, and that of the first record of this process.
pub(super) fn mark_start(started: Utc) {
    /// The pid and the time. A forked child is another process.
    static FIRST: AtomicU64 = AtomicU64::new(0);
    let (pid, run) = (getpid().as_raw().cast_unsigned(), label(started.micros()));
    // Relaxed: it publishes no other memory.
    let before = FIRST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |first| {
        let is_other = first >> 32 != u64::from(pid);
        is_other.then_some(u64::from(pid) << 32 | u64::from(run))
    });
    signal_itself([run, before.map_or_else(|first| first as u32, |_| run)]);
}

/// A time to the microsecond, modulo 2^32 (71 minutes). The time of the audit log itself is too
/// coarse: it can be some milliseconds early, and a whole run can be shorter than that.
fn label(us: i64) -> u32 {
    us as u32
}

/// The arguments with which journalctl(1) prints the audit records that can answer a query, oldest
/// first.
pub fn audit_journal_arguments(query: &AuditQuery) -> Vec<String> {
    let since = query.since().map_or(0, |since| since.micros().div_euclid(1_000_000));
    let fields = "_TRANSPORT,_AUDIT_TYPE_NAME,_AUDIT_ID,_SOURCE_REALTIME_TIMESTAMP,MESSAGE";
    let options = [
        "--quiet".to_owned(),
        "--no-pager".to_owned(),
        "--output=json".to_owned(),
        format!("--output-fields={fields}"),
        format!("--since=@{since}"),
        format!("--lines={MAX_JOURNAL}"),
        "_TRANSPORT=audit".to_owned(),
    ];
    // SYSCALL, OBJ_PID and PROCTITLE.
    let types = ["1300", "1318", "1327"].map(|kind| format!("_AUDIT_TYPE={kind}"));
    options.into_iter().chain(types).collect()
}

/// A name as the kernel cuts it.
fn comm(name: &str) -> String {
    let bytes = name.as_bytes();
    String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_COMM)]).into_owned()
}

/// A search through a log, from its oldest line to its newest.
#[derive(Debug)]
pub struct AuditSearch {
    query: AuditQuery,
    /// The events whose records are not yet complete, in the order in which they began.
    open: VecDeque<OpenEvent>,
    /// The pid of the run in the first namespace, by the signal that it sent itself.
    found_pid: Option<u32>,
    /// That signal, and the label of the process.
    start: Option<(EventId, u32)>,
    /// Several processes can be the run.
    is_ambiguous: bool,
    /// The first event after the start of the run that shows another process with its pid. If the start
    /// is not in the log, it is an event that may be after it.
    reused: Option<EventId>,
    kill: Option<(EventId, SentSignal)>,
    asked: Option<(EventId, SentSignal)>,
    /// Several processes can have sent the signal.
    is_asked_ambiguous: bool,
}

#[derive(Debug)]
struct OpenEvent {
    id: EventId,
    call: Call,
    /// How many processes the call named.
    targets: usize,
    ours: Option<Target>,
    cmdline: Option<String>,
}

impl AuditSearch {
    /// A search that has not read anything.
    pub fn new(query: AuditQuery) -> Self {
        Self {
            query,
            open: VecDeque::new(),
            found_pid: None,
            start: None,
            is_ambiguous: false,
            reused: None,
            kill: None,
            asked: None,
            is_asked_ambiguous: false,
        }
    }

    /// Reads a line of auditd's log.
    pub fn line(&mut self, line: &str) {
        self.read(parse(line));
    }

    /// Reads a line of `journalctl -o json _TRANSPORT=audit`.
    pub fn journal_line(&mut self, line: &str) {
        self.read(parse_journal(line));
    }

    /// The senders that were found: that of the signal, and then that of the SIGKILL.
    pub fn finish(mut self) -> Vec<SentSignal> {
        while let Some(event) = self.open.pop_front() {
            self.consider(event);
        }
        if self.is_ambiguous {
            return Vec::new();
        }
        let before_reuse = |id: EventId| self.reused.is_none_or(|reused| id < reused);
        let kill = self.kill.filter(|&(id, _)| before_reuse(id));
        let asked = self.asked.filter(|&(id, _)| before_reuse(id) && !self.is_asked_ambiguous);
        [asked, kill].into_iter().flatten().map(|(_, sent)| sent).collect()
    }

    fn read(&mut self, line: Option<(EventId, Line)>) {
        let Some((id, line)) = line else { return };
        if let Line::Call(call) = line {
            if self.open.len() == MAX_OPEN
                && let Some(oldest) = self.open.pop_front()
            {
                self.consider(oldest);
            }
            if let Some(call) = call {
                let event = OpenEvent { id, call: *call, targets: 0, ours: None, cmdline: None };
                self.open.push_back(event);
            }
            return;
        }
        let Some(n) = self.open.iter().position(|event| event.id == id) else { return };
        let host_pid = self.host_pid();
        let event = &mut self.open[n];
        match line {
            Line::Target(target) => {
                event.targets += 1;
                let is_to_itself = target.pid == event.call.pid;
                if Some(target.pid) == host_pid {
                    event.ours = Some(target);
                }
                // At once, because the events that follow need the pid.
                if is_to_itself && event.call.signal.as_raw() == 0 && event.call.succeeded {
                    let call = event.call.clone();
                    self.signalled_itself(id, &call);
                }
            }
            Line::Cmdline(cmdline) => event.cmdline = cmdline,
            Line::End => drop(self.open.remove(n).map(|event| self.consider(event))),
            Line::Call(_) => {}
        }
    }

    /// The pid of the run in the first namespace.
    fn host_pid(&self) -> Option<u32> {
        self.query.host_pid.or(self.found_pid)
    }

    /// A process has sent itself the signal 0, as each run does at its start.
    fn signalled_itself(&mut self, id: EventId, call: &Call) {
        let query = &self.query;
        let [run, process] = call.label;
        let is_our_start = run == label(query.started_us)
            && call.to == Addressed::Process(query.pid.cast_signed());
        let has_our_exe = query.exe.is_none() || query.exe == call.exe;
        // Another user can choose the arguments, and the path of the program in a namespace.
        let has_our_user = query.uid.is_none_or(|uid| uid == call.uid);
        if query.host_pid.is_none() && is_our_start && has_our_exe && has_our_user {
            let found = *self.found_pid.get_or_insert(call.pid);
            self.is_ambiguous |= found != call.pid;
        }
        if self.host_pid() != Some(call.pid) {
            return;
        }
        if is_our_start {
            self.start = Some((id, process));
            // What came before was sent to another process that had the pid.
            self.kill.take_if(|(before, _)| *before < id);
            self.asked.take_if(|(before, _)| *before < id);
            self.reused.take_if(|before| *before < id);
            return;
        }
        let is_later = match self.start {
            Some((start, ours)) => id > start && process != ours,
            // The log's clock is late. If it is not sure which of the two was earlier, nothing counts.
            None => id.at.micros() > self.query.started_us - SLACK,
        };
        if is_later {
            self.reused = Some(self.reused.map_or(id, |reused| reused.min(id)));
        }
    }

    /// Looks at an event whose records are complete.
    fn consider(&mut self, event: OpenEvent) {
        let OpenEvent { id, call, targets, ours: Some(target), cmdline } = event else { return };
        let is_after_start = match self.start {
            Some((start, _)) => id > start,
            None => id.at.micros() >= self.query.started_us,
        };
        // The kernel reports a process before it checks whether the sender may signal it. If a call
        // named several, it succeeds if one of them may be signalled.
        let may_signal = targets == 1
            || [call.uid, call.effective_uid].iter().any(|&uid| uid == 0 || uid == target.uid);
        if !is_after_start || !call.succeeded || !may_signal || !self.is_ours(&call, &target) {
            return;
        }
        if self.may_have_killed(id, &call) {
            let is_first = self.kill.as_ref().is_none_or(|&(first, _)| id < first);
            if is_first {
                self.kill = Some((id, SentSignal::new(id, call, cmdline)));
            }
        } else if self.may_have_asked(id, &call) {
            let is_other = |sent: &SentSignal| sent.sender_pid != call.pid;
            self.is_asked_ambiguous |= self.asked.as_ref().is_some_and(|(_, sent)| is_other(sent));
            if self.asked.as_ref().is_none_or(|&(last, _)| id > last) {
                self.asked = Some((id, SentSignal::new(id, call, cmdline)));
            }
        }
    }

    /// Whether a process with the run's pid is that of the run.
    fn is_ours(&self, call: &Call, target: &Target) -> bool {
        // Threads have names of their own.
        let is_thread = matches!(call.to, Addressed::Thread { is_main: false, .. });
        (is_thread || target.name == self.query.name)
            && self.query.uid.is_none_or(|uid| uid == target.uid)
    }

    fn may_have_killed(&self, id: EventId, call: &Call) -> bool {
        // Nothing that the run recorded can have come after it.
        let is_at_end = id.at.micros() >= self.query.last_us - SLACK;
        self.query.killed && call.signal == SIGKILL && is_at_end && !self.is_ignored(call)
    }

    /// Whether the kernel ignored a SIGKILL: that to process 1 of a pid namespace from inside of it
    /// (pid_namespaces(7)). Inside, the number of the process is 1, and that of its process group is
    /// not its number in the first namespace.
    fn is_ignored(&self, call: &Call) -> bool {
        let host_pid = self.host_pid().map(u32::cast_signed);
        self.query.pid == 1
            && host_pid != Some(1)
            && match call.to {
                Addressed::Process(id) if id <= 0 => Some(id.wrapping_neg()) != host_pid,
                Addressed::Process(id) | Addressed::Thread { id, .. } => id == 1,
                Addressed::Descriptor => false,
            }
    }

    fn may_have_asked(&self, id: EventId, call: &Call) -> bool {
        let Some(asked) = &self.query.asked else { return false };
        let is_sender = match asked.sender {
            Some((pid, uid)) => pid == call.pid && uid == call.uid,
            None => id.at.micros() >= asked.at_us - DELIVERY_US,
        };
        is_sender
            && asked.signal == call.signal.to_string()
            && id.at.micros() <= asked.at_us + TICK_US
    }
}

/// Whether a line of auditd's log begins the event of a call that sends a signal.
pub fn is_signal_call(line: &str) -> bool {
    matches!(parse(line), Some((_, Line::Call(Some(_)))))
}

#[cfg(test)]
mod tests;
