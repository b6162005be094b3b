//! Writes the kernel's audit messages to a file, as auditd would.
//!
//! The kernel also sends its messages to a multicast group of netlink(7), for readers other than
//! auditd. Only the events of calls that send signals are written, in the format of auditd's log.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use forensics_core::escape::{Escaped, error_chain};
use forensics_core::record::{AccessError, is_signal_call};
use forensics_core::secure_fs::{Folder, append_to};
use rustix::io::Errno;
use rustix::net::netlink::{AUDIT, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SocketAddrAny, SocketFlags, SocketType, bind, recvfrom, socket_with,
    sockopt,
};

/// The group, as a bit (`AUDIT_NLGRP_READLOG`, `linux/audit.h`).
const READ_LOG: u32 = 1;

/// `nlmsghdr` (`linux/netlink.h`): four bytes with the length, two with the type, ten others.
const HEADER: usize = 16;

/// Longest message (`MAX_AUDIT_MESSAGE_LENGTH` of libaudit), with its header.
const MAX_MESSAGE: usize = 16 << 10;

/// How many bytes the kernel may hold for us.
const RECEIVE_BUFFER: usize = 4 << 20;

/// How many events are written at a time.
const MAX_OPEN: usize = 64;

/// How large the file may become, and how many older ones are kept.
const MAX_FILE: u64 = 16 << 20;
const MAX_ROTATED: usize = 4;

/// The types of the records that `forensics` reads (`linux/audit.h`).
fn name_of(kind: u16) -> Option<&'static str> {
    Some(match kind {
        1300 => "SYSCALL",
        1318 => "OBJ_PID",
        1327 => "PROCTITLE",
        1320 => "EOE",
        _ => return None,
    })
}

/// Writes the events to the file at `path` until the process is ended.
///
/// # Errors
/// If the group cannot be read, or the file cannot be written.
pub(super) fn follow(path: &Path, out: &mut dyn Write) -> io::Result<ExitCode> {
    let mut log = Log::open(path)?;
    let failed = |errno: Errno| {
        let hint = if errno == Errno::PERM { ": only root can (CAP_AUDIT_READ)" } else { "" };
        io::Error::other(format!("cannot read the kernel's audit messages: {errno}{hint}"))
    };
    let (family, raw) = (AddressFamily::NETLINK, SocketType::RAW);
    let messages = socket_with(family, raw, SocketFlags::CLOEXEC, Some(AUDIT));
    let messages = messages.map_err(failed)?;
    // Fails without CAP_NET_ADMIN. The default size is then enough for a machine that is not busy.
    let _ = sockopt::set_socket_recv_buffer_size_force(&messages, RECEIVE_BUFFER);
    bind(&messages, &SocketAddrNetlink::new(0, READ_LOG)).map_err(failed)?;
    writeln!(out, "writing the events to {}", Escaped(&path.display().to_string()))?;
    out.flush()?;
    let mut buffer = vec![0; MAX_MESSAGE];
    loop {
        match recvfrom(&messages, &mut buffer[..], RecvFlags::empty()) {
            // Another process with the right to do so can send to the group, too.
            Ok((_, _, sender)) if !is_of_kernel(sender.as_ref()) => {}
            Ok((length, ..)) => {
                if let Some((kind, text)) = parse(&buffer[..length]) {
                    log.write(kind, &text)?;
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::NOBUFS) => eprintln!("forensics: the kernel has dropped some events"),
            Err(errno) => return Err(failed(errno)),
        }
    }
}

fn is_of_kernel(sender: Option<&SocketAddrAny>) -> bool {
    let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender.clone()).ok());
    sender.is_some_and(|sender| sender.pid() == 0)
}

/// The type and the text of a message.
fn parse(message: &[u8]) -> Option<(&'static str, String)> {
    let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
    let text = String::from_utf8_lossy(message.get(HEADER..)?);
    let text = text.trim_end_matches(['\0', '\n']);
    // None of these types has one.
    let is_one_line = !text.contains(['\n', '\0']);
    Some((name_of(kind).filter(|_| is_one_line)?, text.to_owned()))
}

/// The file.
struct Log {
    path: PathBuf,
    /// Its folder. The file is renamed there, even if the path of the folder leads to another one by then.
    folder: Folder,
    file: File,
    /// The stamps of the events that are being written, such as `audit(1795878157.058:10)`.
    open: VecDeque<String>,
}

impl Log {
    fn open(path: &Path) -> io::Result<Self> {
        let file = append(path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder =
            Folder::open(parent.unwrap_or(Path::new("."))).map_err(|error| refused(&error))?;
        Ok(Self { path: path.to_owned(), folder, file, open: VecDeque::new() })
    }

    /// Writes a record, if it belongs to an event of a call that sends a signal.
    fn write(&mut self, kind: &str, text: &str) -> io::Result<()> {
        let line = format!("type={kind} msg={text}\n");
        let Some((stamp, _)) = text.split_once(": ") else { return Ok(()) };
        if is_signal_call(line.trim_end()) {
            self.rotate()?;
            if self.open.len() == MAX_OPEN {
                self.open.pop_front();
            }
            self.open.push_back(stamp.to_owned());
        }
        let Some(n) = self.open.iter().position(|open| open == stamp) else { return Ok(()) };
        if kind == "EOE" {
            self.open.remove(n);
        }
        let failed = |e| io::Error::other(format!("cannot write {}: {e}", self.path.display()));
        self.file.write_all(line.as_bytes()).map_err(failed)
    }

    /// Renames a file that is large, as auditd does: to `FILE.1`, and the older ones to `FILE.2`, ….
    fn rotate(&mut self) -> io::Result<()> {
        if self.file.metadata()?.len() < MAX_FILE {
            return Ok(());
        }
        let name = self.path.file_name().unwrap_or_default();
        let numbered = |n: usize| {
            PathBuf::from([name, format!(".{n}").as_ref()].into_iter().collect::<OsString>())
        };
        for n in (1..MAX_ROTATED).rev() {
            let _ = self.folder.rename(&numbered(n), &numbered(n + 1)); // there may be none
        }
        self.folder.rename(Path::new(name), &numbered(1))?;
        self.file = append(&self.path)?;
        Ok(())
    }
}

fn append(path: &Path) -> io::Result<File> {
    append_to(path).map_err(|error| refused(&error))
}

fn refused(error: &AccessError) -> io::Error {
    io::Error::other(error_chain(error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn message(kind: u16, text: &str) -> Vec<u8> {
        let mut message = vec![0; HEADER];
        message[4..6].copy_from_slice(&kind.to_ne_bytes());
        message.extend_from_slice(text.as_bytes());
        message.push(0);
        message
    }

    const STAMP: &str = "audit(1795878157.058:10)";
    const KILL: &str = "audit(1795878157.058:10): arch=c000003e syscall=62 success=yes exit=0 \
        a0=1a95 a1=9 pid=1 uid=0 euid=0";

    #[test]
    fn only_the_records_of_the_kernel_about_signals_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut log = Log::open(&path).unwrap();
        let other = KILL.replace(":10)", ":11)").replace("syscall=62", "syscall=2");
        let title = format!("{STAMP}: proctitle=\"kill\"");
        let messages = [
            message(1300, KILL),
            message(1300, &other),
            message(1318, &format!("{STAMP}: opid=6805")),
            message(1318, "audit(1795878157.058:11): opid=6805"),
            // Programs can write messages of this type, with any text.
            message(1107, "audit(1795878157.058:10): x\ntype=SYSCALL"),
            message(1327, &title),
            message(1320, &format!("{STAMP}: ")),
            message(1327, &title),
            vec![0; 3],
        ];
        for (kind, text) in messages.iter().filter_map(|message| parse(message)) {
            log.write(kind, &text).unwrap();
        }
        let expected = format!(
            "type=SYSCALL msg={KILL}\ntype=OBJ_PID msg={STAMP}: opid=6805\ntype=PROCTITLE msg={title}\n\
             type=EOE msg={STAMP}: \n"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_large_file_is_renamed_before_the_next_event() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let mut log = Log::open(&path).unwrap();
        for n in 1..=MAX_ROTATED + 2 {
            log.file.set_len(MAX_FILE).unwrap();
            log.write("SYSCALL", KILL).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len(), KILL.len() as u64 + 18);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1 + n.min(MAX_ROTATED));
        }
    }

    /// The folder is in a folder of another user, who puts a link to that of auditd in its place.
    #[test]
    fn no_file_of_another_folder_is_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let mut log = Log::open(&at("ours/audit.log")).unwrap();
        log.file.set_len(MAX_FILE).unwrap();
        fs::rename(at("ours"), at("moved")).unwrap();
        fs::create_dir(at("auditd")).unwrap();
        fs::write(at("auditd/audit.log"), "precious").unwrap();
        symlink(at("auditd"), at("ours")).unwrap();
        let _ = log.write("SYSCALL", KILL);
        assert!(!at("auditd/audit.log.1").exists() && at("moved/audit.log.1").exists());
        assert!(fs::read_to_string(at("auditd/audit.log")).unwrap().starts_with("precious"));
    }
}
