//! Reading small files of `/proc`, `/sys` and control groups for the parsers of the crate procfs.
//!
//! procfs reads a file to its end, and a command line can have megabytes. So this module opens the
//! file, reads it up to [`LIMIT`], and lets procfs parse the bytes. Opening does not wait for the
//! writer of a FIFO, and does not make a terminal our controlling terminal. Content that procfs
//! would panic on is refused first, and bytes that are not UTF-8 are replaced.
//!
//! Nothing here limits the time: a file of lxcfs or of a dead server can block forever. Callers
//! that must not block either read [`without_blocking`], or run a [probe](crate::context::Probe) on
//! a thread that they can abandon.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions, ReadDir};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::unistd::getpid;
use procfs::process::Stat;
use procfs::{FromRead, LoadAverage, ProcessCGroup, ProcessCGroups};

use crate::os;

/// How much of a file is read, in bytes. Only files such as command lines and lists of groups can
/// have more.
pub(crate) const LIMIT: usize = 64 * 1024;

/// Whether the pids in `/proc` are those of our pid namespace.
///
/// They are not after `unshare --pid` without a new `/proc`, or in a container that has the host's
/// `/proc`. Then `/proc/PID` is about another process. The check is repeated until it succeeds.
/// After that the result is kept, because the `/proc` of a service is not replaced while it runs.
pub(crate) fn is_ours() -> bool {
    /// The process that made the check. A forked child may be in another namespace.
    static KNOWN_BY: AtomicI32 = AtomicI32::new(0);
    let pid = getpid().as_raw();
    // Relaxed: it publishes no other memory.
    if KNOWN_BY.load(Ordering::Relaxed) == pid {
        return true;
    }
    let is_ours = os::HAS_PROC
        && fs::read_link("/proc/self").is_ok_and(|own| own == Path::new(&pid.to_string()));
    if is_ours {
        KNOWN_BY.store(pid, Ordering::Relaxed);
    }
    is_ours
}

/// The inode of the machine's initial pid namespace (`PROC_PID_INIT_INO`,
/// `include/linux/proc_ns.h`).
pub(crate) const INITIAL_PID_NAMESPACE: u64 = 4_026_531_836;

/// Whether the process of this folder of `/proc` (`/proc/self`) is in the machine's initial pid
/// namespace. `None` if that cannot be read.
pub(crate) fn is_in_initial_pid_namespace(proc: &str) -> Option<bool> {
    let namespace = os::HAS_PROC.then(|| fs::read_link(format!("{proc}/ns/pid")))?.ok()?;
    Some(namespace == Path::new(&format!("pid:[{INITIAL_PID_NAMESPACE}]")))
}

/// Our pid in the machine's initial pid namespace. `None` if `/proc` does not show it, as in most
/// containers.
pub(crate) fn host_pid() -> Option<u32> {
    if is_in_initial_pid_namespace("/proc/self") == Some(true) {
        return u32::try_from(getpid().as_raw()).ok();
    }
    /// `PF_KTHREAD` (`include/linux/sched.h`).
    const KERNEL_THREAD: u32 = 0x0020_0000;
    // Only the /proc of the initial namespace shows kernel threads. The first one has the pid 2.
    let second = read("/proc/2/stat").ok().and_then(|stat| parse_stat(&stat));
    let is_hosts_proc = second.is_some_and(|stat| stat.flags & KERNEL_THREAD != 0);
    let status = is_hosts_proc.then(|| text("/proc/self/status"))??;
    status_field(&status, "NSpid:")?.parse().ok()
}

/// Whether user ids are those of the machine's initial user namespace (`PROC_USER_INIT_INO`).
pub(crate) fn is_in_first_user_namespace() -> bool {
    let namespace = os::HAS_PROC.then(|| fs::read_link("/proc/self/ns/user").ok()).flatten();
    namespace.is_some_and(|namespace| namespace.as_os_str() == "user:[4026531837]")
}

/// The inode of our pid namespace. The kernel gives it to no other namespace of this boot as long as
/// one of its processes lives.
pub(crate) fn pid_namespace() -> Option<u64> {
    os::HAS_PROC.then(|| fs::metadata("/proc/self/ns/pid").ok().map(|meta| meta.ino())).flatten()
}

/// The content of `path`, at most its first 64 KiB.
///
/// # Errors
/// Those of open(2) and read(2): `ESRCH` and `ENOENT` for a process that has exited, `EACCES` and
/// `EPERM` for one that we may not inspect, `EMFILE` without a free descriptor. `ENOENT` on a
/// system without [`/proc`](os::HAS_PROC).
pub(crate) fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    if !os::HAS_PROC {
        return Err(Errno::ENOENT.into());
    }
    let file = open(path.as_ref())?;
    let mut content = Vec::with_capacity(2048);
    file.take(LIMIT as u64).read_to_end(&mut content)?;
    Ok(content)
}

/// Which files the calling thread may read at the moment.
#[derive(Clone, Copy, PartialEq)]
enum Reads {
    /// Any file, even if that blocks.
    All,
    /// Only files that cannot block.
    NonBlocking,
    /// Only files that cannot block, and a file that might block has been requested.
    Refused,
}

thread_local! {
    static READS: Cell<Reads> = const { Cell::new(Reads::All) };
}

/// The result of `work`, in which no read of this module blocks. `None` if it needs a file that
/// might block, which is then not opened.
///
/// The kernel answers a read of `/proc/PID/stat`, `/proc/PID/status` and `/proc/loadavg` at once.
/// Such a file can block only if another file system is mounted over it. Here the open fails in
/// that case, even if the mount is made at the same moment.
pub(crate) fn without_blocking<T>(work: impl FnOnce() -> T) -> Option<T> {
    READS.set(Reads::NonBlocking);
    let result = work();
    let reads = READS.replace(Reads::All);
    (reads == Reads::NonBlocking).then_some(result)
}

fn open(path: &Path) -> io::Result<File> {
    if READS.get() == Reads::All {
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        return OpenOptions::new().read(true).custom_flags(flags).open(path);
    }
    let may_be_read = ["stat", "status", "loadavg"].iter().any(|name| path.ends_with(name));
    let in_proc = path.strip_prefix("/proc").ok().filter(|_| may_be_read);
    match in_proc.map(os::open_in_procfs) {
        Some(Ok(file)) => Ok(file),
        // The process has exited.
        Some(Err(error)) if [Errno::ENOENT, Errno::ESRCH].contains(&error) => Err(error.into()),
        // The file is not the kernel's own, or a seccomp filter refuses the call.
        _ => {
            READS.set(Reads::Refused);
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
}

/// The content of `/proc/PID/FILE`.
///
/// # Errors
/// As [`read`], and `ENOENT` if `/proc` is not [ours](is_ours).
pub(crate) fn read_of(pid: i32, file: &str) -> io::Result<Vec<u8>> {
    if is_ours() { read(format!("/proc/{pid}/{file}")) } else { Err(Errno::ENOENT.into()) }
}

/// The content of `path` as text. `None` if it cannot be read.
pub(crate) fn text(path: impl AsRef<Path>) -> Option<String> {
    Some(String::from_utf8_lossy(&read(path).ok()?).into_owned())
}

/// The content of `/proc/PID/FILE` as text. `None` if it cannot be read.
pub(crate) fn text_of(pid: i32, file: &str) -> Option<String> {
    Some(String::from_utf8_lossy(&read_of(pid, file).ok()?).into_owned())
}

/// The entries of the folder `path`.
///
/// # Errors
/// As [`read`].
pub(crate) fn list(path: &str) -> io::Result<ReadDir> {
    if os::HAS_PROC { fs::read_dir(path) } else { Err(Errno::ENOENT.into()) }
}

/// Whether the file or folder exists.
pub(crate) fn exists(path: &str) -> bool {
    os::HAS_PROC && Path::new(path).exists()
}

/// Parses the content of `/proc/PID/stat`, or of a thread's.
///
/// A process chooses its name, which may contain `)` and newlines, so the name ends at the last
/// `)`. procfs 0.18 splits the line at the parentheses, and panics if there is no pid before them
/// or no state after them. So this function checks both first.
pub(crate) fn parse_stat(line: &[u8]) -> Option<Stat> {
    let open = line.iter().position(|&byte| byte == b'(')?;
    let close = line.iter().rposition(|&byte| byte == b')').filter(|&close| close > open)?;
    let pid = line[..open].strip_suffix(b" ")?;
    let is_pid = !pid.is_empty() && pid.iter().all(u8::is_ascii_digit);
    let has_state = matches!(line[close + 1..], [b' ', state, ..] if state.is_ascii_graphic());
    if is_pid && has_state { Stat::from_read(line).ok() } else { None }
}

/// The real user's id of the process `pid`, and the pid of its tracer.
pub(crate) fn uid_and_tracer(pid: i32) -> (Option<u32>, Option<i32>) {
    let (uid, tracer) = parse_status(&text_of(pid, "status").unwrap_or_default());
    (uid.filter(|&uid| is_known_uid(uid)), tracer)
}

/// The uid that the kernel shows for every user who has none in our user namespace
/// (user_namespaces(7)). `None` in the initial namespace, where each user has one.
///
/// May block at the first call.
pub(crate) fn overflow_uid() -> Option<u32> {
    static OVERFLOW: OnceLock<Option<u32>> = OnceLock::new();
    *OVERFLOW.get_or_init(|| {
        let map = fs::read_to_string("/proc/self/uid_map").ok()?;
        let overflow = fs::read_to_string("/proc/sys/kernel/overflowuid");
        let overflow = overflow.ok().and_then(|uid| uid.trim().parse().ok()).unwrap_or(65534);
        (!map.split_whitespace().eq(["0", "0", "4294967295"])).then_some(overflow)
    })
}

/// Whether this uid, which the kernel has reported, is that of one user.
pub(crate) fn is_known_uid(uid: u32) -> bool {
    overflow_uid() != Some(uid)
}

/// The same, from the content of `/proc/PID/status`. procfs is not used: it refuses the whole file if
/// it lacks a field, as under gVisor, or if its list of groups was cut at [`LIMIT`].
fn parse_status(text: &str) -> (Option<u32>, Option<i32>) {
    let field = |name| status_field(text, name);
    let uid = field("Uid:").and_then(|uid| uid.parse().ok());
    let tracer = field("TracerPid:").and_then(|pid| pid.parse().ok());
    (uid, tracer.filter(|&pid| pid != 0))
}

/// The first value of a line of `/proc/PID/status`.
fn status_field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let values = text.lines().find_map(|line| line.strip_prefix(name))?;
    values.split_whitespace().next()
}

/// A signal mask from the content of a file such as `/proc/PID/status`, by its label there.
pub(crate) fn mask(text: &str, label: &str) -> Option<u64> {
    let mask = text.lines().find_map(|line| line.strip_prefix(label))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

/// Parses the content of `/proc/loadavg`: the averages over 1, 5 and 15 minutes.
pub(crate) fn parse_load(content: &[u8]) -> Option<[f32; 3]> {
    let load = LoadAverage::from_read(content).ok()?;
    let load = [load.one, load.five, load.fifteen];
    load.iter().all(|average| average.is_finite()).then_some(load)
}

/// Parses the content of `/proc/PID/cgroup`. Empty for other content.
pub(crate) fn parse_cgroups(text: &str) -> Vec<ProcessCGroup> {
    let groups = ProcessCGroups::from_read(text.as_bytes());
    let mut groups = groups.map(|groups| groups.0).unwrap_or_default();
    for group in &mut groups {
        // The kernel appends this if the group of a zombie was removed.
        if let Some(path) = group.pathname.strip_suffix(" (deleted)") {
            group.pathname = path.to_owned();
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REST: &str = "S 7 42 43 0 -1 4194560 10 0 0 0 30 12 0 0 20 0 1 0 9876 11247616 321 \
                        18446744073709551615 1 1 0 0 0 0 0 0 65536 0 0 0 17 1 0 0 0 0 0";

    #[test]
    fn the_needed_fields_are_found() {
        let stat = parse_stat(format!("42 (sleep) {REST}\n").as_bytes()).unwrap();
        assert_eq!((stat.pid, stat.ppid, stat.session, stat.state), (42, 7, 43, 'S'));
        assert_eq!((stat.utime + stat.stime, stat.starttime, stat.rss), (42, 9876, 321));
        assert_eq!(stat.comm, "sleep");
    }

    #[test]
    fn no_name_shifts_the_fields() {
        let (longest, longer) = ([b')'; 63], [b')'; 200]);
        let names: [(&[u8], &str); 9] = [
            (b"", ""),
            (b") R 1 1", ") R 1 1"),
            (b"a) S 9 (b", "a) S 9 (b"),
            (b"((()", "((()"),
            (b"a\nb c", "a\nb c"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (b"kworker/u256:3-events_unbound_and_more", "kworker/u256:3-events_unbound_and_more"),
            (&longest, &")".repeat(63)),
            // Longer than any name in a kernel.
            (&longer, &")".repeat(200)),
        ];
        for (name, shown) in names {
            let line = [b"4194304 (", name, b") ", REST.as_bytes(), b"\n"].concat();
            let stat = parse_stat(&line).unwrap();
            assert_eq!((stat.pid, stat.ppid, stat.starttime), (4_194_304, 7, 9876));
            assert_eq!(stat.comm, shown);
        }
    }

    #[test]
    fn an_invalid_line_is_refused() {
        let cases = [
            "",
            "42",
            "42 (",
            "42 (sleep)",
            "42 (sleep) ",
            "42 (sleep)S 7",
            "42(sleep) S 7",
            "42 (sleep)\u{e9}S 7",
            "42\u{e9}(sleep) S 7",
            " (sleep) S 1",
            "\u{2003}(sleep) S 1",
            ")(",
            "(sleep) S 1",
            "42 (sleep) S 7 42 42 0 -1 0 10 0 0 0 30 12 0 0 20 0 1 0 9876 11247616",
            "99999999999 (sleep) S 7 42 42 0 -1 0 10 0 0 0 30 12 0 0 20 0 1 0 9876 11247616 321",
        ];
        for line in cases {
            assert!(parse_stat(line.as_bytes()).is_none(), "{line}");
        }
        let whole = format!("42 (sl (e)p) {REST}");
        for end in 0..whole.find(" 321").unwrap() {
            assert!(parse_stat(&whole.as_bytes()[..end]).is_none(), "{}", &whole[..end]);
        }
    }

    #[test]
    fn the_bytes_that_the_handler_keeps_of_a_stat_are_enough() {
        // It keeps 512 bytes. The longest possible line has more, but only in fields that may be
        // absent.
        let line = format!("4194304 (abcdefghijklmno) {REST} 1 2 3 4 5 6 7");
        let whole = parse_stat(line.as_bytes()).unwrap();
        let cut = parse_stat(&line.as_bytes()[..line.len() - 6]).unwrap();
        assert_eq!((whole.comm, whole.starttime), (cut.comm, cut.starttime));
    }

    #[test]
    fn this_process_is_parsed() {
        let stat = parse_stat(&read("/proc/self/stat").unwrap()).unwrap();
        assert_eq!(u32::try_from(stat.pid).unwrap(), std::process::id());
        assert!(stat.rss > 0);
    }

    #[test]
    fn user_and_tracer_are_read_independently() {
        let text = std::fs::read_to_string("/proc/self/status").unwrap();
        assert_eq!(parse_status(&text), (Some(nix::unistd::getuid().as_raw()), None));
        let hostile =
            "Name:\t:a\\nUid:\\t0\u{fffd}\nTracerPid:\t99\nUid:\t7\t8\t9\t10\nX\u{e9}:1\n";
        let cases = [
            (hostile, (Some(7), Some(99))),
            ("Uid:\t7\t8\t9\t10\n", (Some(7), None)),
            ("TracerPid:\t99\nUid:\t7\t8\t9\t10\nGroups:\t1 2 3\nSig", (Some(7), Some(99))),
            ("TracerPid:\t99\nGroups:\t1 2 3", (None, Some(99))),
            ("", (None, None)),
            ("TracerPid:\t99\nUid:\tx\n", (None, Some(99))),
            ("not a status\n", (None, None)),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_status(text), expected, "{text}");
        }
    }

    #[test]
    fn load_averages_are_the_numbers_that_the_kernel_writes() {
        assert_eq!(parse_load(b"0.42 0.30 12.05 3/500 4242\n"), Some([0.42, 0.3, 12.05]));
        for text in ["", "0.42 0.30", "0.42 0.3 0.20", "a.00 0.30 0.20 1/2 3", "1 2 3"] {
            assert_eq!(parse_load(text.as_bytes()), None, "{text}");
        }
        assert_eq!(parse_load(b"NaN 0.30 0.20 1/2 3"), None);
    }

    #[test]
    fn a_huge_file_is_read_up_to_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge");
        fs::write(&path, vec![b'x'; 3 * LIMIT]).unwrap();
        assert_eq!(read(&path).unwrap().len(), LIMIT);
    }

    #[test]
    fn a_fifo_without_a_writer_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read(&path).unwrap(), b"");
    }

    #[test]
    fn only_the_kernels_own_small_files_are_read_without_blocking() {
        let _procfs = crate::capture::tests::PROCFS.lock().unwrap();
        let own = format!("/proc/{}", std::process::id());
        let readable = [format!("{own}/stat"), format!("{own}/status"), "/proc/loadavg".to_owned()];
        for path in readable {
            let content = without_blocking(|| read(&path)).expect(&path).expect(&path);
            assert!(!content.is_empty(), "{path}");
        }
        let gone = without_blocking(|| read("/proc/999999999/stat")).unwrap().unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
        // Reading these waits for a lock that another process can hold, or they are on another file
        // system.
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = dir.path().join("stat");
        fs::write(&elsewhere, "x").unwrap();
        let refused = [
            format!("{own}/cmdline"),
            "/proc/self/stat".to_owned(),
            elsewhere.to_str().unwrap().to_owned(),
            "/etc/passwd".to_owned(),
        ];
        for path in refused {
            assert!(without_blocking(|| read(&path)).is_none(), "{path}");
            assert!(!read(&path).unwrap().is_empty(), "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_line_causes_a_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_stat(&line);
            let _ = parse_stat(&[b"1 (", &line[..], b") ", REST.as_bytes()].concat());
            let _ = parse_stat(&[b"1 (x)", &line[..]].concat());
            let _ = parse_load(&line);
            let text = String::from_utf8_lossy(&line);
            let _ = (parse_status(&text), parse_cgroups(&text));
        }
    }
}
