//! Linux: `O_PATH` keeps a reference to the file that was found, and `/proc/self/fd` opens this
//! same file.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::OnceLock;
use std::time::Duration;

use nix::NixPath;
use nix::errno::Errno;
use nix::fcntl::{
    FallocateFlags, OFlag, OpenHow, ResolveFlag, fallocate, open, openat, openat2, readlinkat,
};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::sys::statfs::{
    BPF_FS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, DEBUGFS_MAGIC, FsType, PROC_SUPER_MAGIC,
    SECURITYFS_MAGIC, SYSFS_MAGIC, TRACEFS_MAGIC, fstatfs,
};
use nix::time::{ClockId, clock_gettime};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags, fgetxattr_query, statx};
use rustix::io::Errno as XattrError;

use super::Found;
use crate::secure_fs::{Links, OpenError, READ, is_regular, kind};

/// Whether the system has Linux's `/proc`.
pub(crate) const HAS_PROC: bool = true;

/// Whether a link stays the same between checking it and reading it.
pub(crate) const LINKS_ARE_HELD: bool = true;

/// The folder `/proc`, if it is the kernel's procfs. It is opened once and never closed, because
/// something can be mounted over it later.
pub(crate) fn procfs() -> Option<BorrowedFd<'static>> {
    static PROCFS: OnceLock<Option<OwnedFd>> = OnceLock::new();
    let procfs = PROCFS.get_or_init(|| {
        let folder = begin(Path::new("/proc")).ok()?;
        is_procfs(folder.as_fd()).then_some(folder)
    });
    procfs.as_ref().map(OwnedFd::as_fd)
}

/// Opens a file of `/proc` to read it, if the kernel's procfs itself serves it.
///
/// # Errors
/// `EXDEV` if something is mounted over it, `ELOOP` for a link, `ENOSYS` or `EPERM` if openat2(2) is
/// refused, and those of open(2).
pub(crate) fn open_in_procfs(path: &Path) -> nix::Result<File> {
    // A program may have closed all its descriptors, and this one may be another folder now.
    let procfs = procfs().filter(|folder| is_procfs(*folder)).ok_or(Errno::EXDEV)?;
    open_within(procfs, path).map(File::from)
}

/// Opens the file at `path` below `folder` to read it, if no other file system is mounted on the way
/// to it. A file system that is served by a process may block forever. The OS handler calls this,
/// with a `CStr`, for which nix does not allocate.
pub(crate) fn open_within(
    folder: BorrowedFd<'_>,
    path: &(impl NixPath + ?Sized),
) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_NO_XDEV | ResolveFlag::RESOLVE_NO_SYMLINKS;
    openat2(folder, path, OpenHow::new().flags(READ).resolve(resolve))
}

fn is_procfs(folder: BorrowedFd<'_>) -> bool {
    fstatfs(folder).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
}

/// Refers to a file of any kind without opening it.
const LOOK: OFlag = OFlag::O_PATH.union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);

/// Opens the folder at which a path begins, `/` or `.`.
pub(crate) fn begin(path: &Path) -> nix::Result<OwnedFd> {
    open(path, LOOK | OFlag::O_DIRECTORY, Mode::empty())
}

/// Looks up a name in a folder.
pub(crate) fn step(at: BorrowedFd<'_>, name: &Path) -> nix::Result<Found> {
    let found = openat(at, name, LOOK, Mode::empty())?;
    let stat = fstat(&found)?;
    Ok(match kind(&stat) {
        SFlag::S_IFDIR => Found::Folder(found),
        SFlag::S_IFLNK => Found::Link(stat, readlinkat(&found, Path::new(""))?),
        _ => Found::Other,
    })
}

/// The file systems in which the kernel itself answers. A read can have an effect there: one of
/// `/proc/kmsg` removes the messages.
const KERNEL: [FsType; 8] = [
    PROC_SUPER_MAGIC,
    SYSFS_MAGIC,
    TRACEFS_MAGIC,
    DEBUGFS_MAGIC,
    SECURITYFS_MAGIC,
    CGROUP_SUPER_MAGIC,
    CGROUP2_SUPER_MAGIC,
    BPF_FS_MAGIC,
];

/// Opens the regular file of that name below `folder`. Also returns the metadata from the check.
pub(crate) fn open_regular(
    folder: BorrowedFd<'_>,
    name: &Path,
    links: Links,
    access: OFlag,
) -> Result<(OwnedFd, FileStat), OpenError> {
    let flag = links.flag();
    let found = openat(folder, name, OFlag::O_PATH | OFlag::O_CLOEXEC | flag, Mode::empty())?;
    let stat = fstat(&found)?;
    if !is_regular(&stat) {
        return Err(OpenError::NotRegular);
    }
    if KERNEL.contains(&fstatfs(&found)?.filesystem_type()) {
        return Err(OpenError::Kernel);
    }
    let by_descriptor = format!("/proc/self/fd/{}", found.as_raw_fd());
    let file = match open(Path::new(&by_descriptor), access, Mode::empty()) {
        Err(Errno::ENOENT) => openat(folder, name, access | flag, Mode::empty())?,
        opened => opened?,
    };
    Ok((file, stat))
}

/// Whether the file itself is mounted at its path. Only root can mount it there.
pub(crate) fn is_mounted(file: &File) -> bool {
    let found = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Whether there is a file of that path below `root`, without following a link.
pub(crate) fn is_file_below(root: &Path, path: &Path) -> bool {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_SYMLINKS;
    let root = open(root, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let found =
        root.and_then(|root| openat2(root, path, OpenHow::new().flags(LOOK).resolve(resolve)));
    found.and_then(fstat).is_ok_and(|stat| is_regular(&stat))
}

/// Whether the file or folder has an access control list (`acl(5)`), or that cannot be found out.
pub(crate) fn has_acl(file: &File) -> bool {
    const ACL: &CStr = c"system.posix_acl_access";
    // A folder of `begin` or `step` has been opened with `O_PATH`, which does not allow this call.
    let opened =
        openat(file, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let found = match opened {
        Ok(folder) => fgetxattr_query(&folder, ACL),
        Err(Errno::ENOTDIR) => fgetxattr_query(file, ACL),
        Err(_) => return true,
    };
    !matches!(found, Err(XattrError::NODATA | XattrError::OPNOTSUPP))
}

/// Reserves disk space for future writes to the file, if its file system can.
pub(crate) fn reserve_space(file: &File, bytes: i64) {
    // Not every file system can, and the disk may be full. Later writes then fail if they do not
    // fit.
    let _ = fallocate(file, FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, bytes);
}

/// How long ago a process started, from its start time in `/proc/PID/stat`, in clock ticks since boot.
pub(crate) fn age(start_time: u64) -> Option<Duration> {
    let millis = start_time.saturating_mul(1000) / procfs::ticks_per_second();
    Some(since_boot()?.saturating_sub(Duration::from_millis(millis)))
}

/// The time since boot, including suspend.
pub(crate) fn since_boot() -> Option<Duration> {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).ok()
}
