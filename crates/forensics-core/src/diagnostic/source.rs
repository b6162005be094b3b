//! Files of the kernel, read into one buffer.

use super::shown;
use crate::escape::Plain;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Bytes read of one file at most. The longest record of `/dev/kmsg` just fits
/// (`CONSOLE_EXT_LOG_MAX` in older kernels' `printk.h`), and so does every file read here but a
/// huge command line.
const BUFFER: usize = 8192;

pub(super) struct Source {
    buffer: Box<[u8; BUFFER]>,
}

impl Source {
    pub(super) fn new() -> Self {
        Self { buffer: Box::new([0; BUFFER]) }
    }

    /// What stands in the file, up to the size of the buffer.
    ///
    /// In one `read`: the files read here are written by the kernel as one piece (`single_open`
    /// in its `seq_file.c`), of which a read returns all that fits. Asking again, only to hear
    /// that this was all, would be a third of the system calls.
    pub(super) fn read(&mut self, path: &Path) -> io::Result<&[u8]> {
        self.next(&mut open(path)?)
    }

    /// What one `read` of an open file gives: of `/dev/kmsg` that is one record.
    pub(super) fn next(&mut self, file: &mut impl Read) -> io::Result<&[u8]> {
        let n = file.read(&mut self.buffer[..])?;
        Ok(&self.buffer[..n])
    }

    /// Writes a line `name: …` with what `show` makes of the file, or why it can't be read.
    pub(super) fn fact(
        &mut self,
        out: &mut dyn Write,
        name: &str,
        path: &Path,
        show: &dyn Fn(&str) -> String,
    ) -> io::Result<()> {
        match self.read(path) {
            Ok(bytes) => said(out, name, Plain(&show(&String::from_utf8_lossy(bytes)))),
            Err(e) => unreadable(out, name, &e),
        }
    }
}

/// Writes a line `name: value`.
pub(super) fn said(out: &mut dyn Write, name: &str, value: impl Display) -> io::Result<()> {
    writeln!(out, "{name}: {value}")
}

/// Writes a line that says why there is no value.
pub(super) fn unreadable(out: &mut dyn Write, name: &str, e: &io::Error) -> io::Result<()> {
    said(out, name, format_args!("not readable ({})", shown::why(e)))
}

/// Opens a file for reading, without ever waiting for a FIFO's writer or a device's next line.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(nix::libc::O_NONBLOCK | nix::libc::O_NOCTTY)
        .open(path)
}
