//! Files of the kernel, read into one buffer.

use super::shown;
use crate::escape::Plain;
use crate::secure_fs::READ;
use nix::fcntl::openat;
use nix::sys::stat::Mode;
use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

/// Bytes read of one file at most. The longest record of `/dev/kmsg` just fits
/// (`CONSOLE_EXT_LOG_MAX` in older kernels' `printk.h`), and so does every file read here but a
/// huge command line.
const BUFFER: usize = 8192;

pub(super) struct Source {
    buffer: Box<[u8; BUFFER]>,
    /// The last name below a folder, to write the next one into.
    name: String,
}

impl Source {
    pub(super) fn new() -> Self {
        Self { buffer: Box::new([0; BUFFER]), name: String::new() }
    }

    /// What stands in a file of process `pid`, as [`read`](Self::read). `proc` is `/proc`, opened, so
    /// that it is not looked up for each.
    pub(super) fn read_of(&mut self, proc: impl AsFd, pid: i32, file: &str) -> io::Result<&[u8]> {
        self.name.clear();
        // Writing into a String cannot fail.
        let _ = write!(self.name, "{pid}/{file}");
        let mut file = File::from(openat(proc, self.name.as_str(), READ, Mode::empty())?);
        self.next(&mut file)
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
    Ok(File::from(nix::fcntl::open(path, READ, Mode::empty())?))
}
