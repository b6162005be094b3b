//! What each thread of this process is doing, for the report about a stalled process.
//!
//! The facts are read from `/proc/self/task`; see `proc_pid_task(5)`. None of these reads waits for
//! the thread. A thread that ends meanwhile is left out. A fact that the kernel does not provide is
//! absent: `wchan` and `syscall` need ptrace access, which a hardened kernel may refuse.

use std::fmt::{self, Display};

use serde::{Deserialize, Serialize};

use crate::logfmt::Value;
use crate::procfile;

/// A thread of this process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    /// Its id; the main thread's is the process's.
    pub tid: i32,
    /// Its name.
    pub name: String,
    /// One letter, as in [`ProcessSummary::state`](crate::process::ProcessSummary::state).
    pub state: char,
    /// The kernel function it sleeps in, such as `futex_do_wait`; absent while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_channel: Option<String>,
    /// The number of the system call it is in, by the tables of this architecture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syscall: Option<i64>,
    /// The CPU time it has used, in clock ticks (100 a second on Linux).
    pub cpu_ticks: u64,
}

impl Thread {
    /// The threads of this process, by id; at most `limit` of them.
    pub fn all(limit: usize) -> Vec<Self> {
        let Ok(tasks) = procfile::list("/proc/self/task") else { return Vec::new() };
        let ids = tasks.flatten().filter_map(|task| task.file_name().to_str()?.parse().ok());
        let mut ids: Vec<i32> = ids.collect();
        ids.sort_unstable();
        ids.into_iter().filter_map(Self::read).take(limit).collect()
    }

    fn read(tid: i32) -> Option<Self> {
        let path = |file| format!("/proc/self/task/{tid}/{file}");
        let stat = procfile::parse_stat(&procfile::read(path("stat")).ok()?)?;
        let text = |file| procfile::text(path(file));
        Some(Self {
            tid,
            name: stat.comm,
            state: stat.state,
            // `0` for a thread that does not wait, or if the kernel does not say.
            wait_channel: text("wchan").filter(|channel| !matches!(channel.as_str(), "" | "0")),
            // `running`, or a number (-1 outside of a call) and its arguments.
            syscall: text("syscall").and_then(|call| call.split_whitespace().next()?.parse().ok()),
            cpu_ticks: stat.utime.saturating_add(stat.stime),
        })
    }
}

/// `tokio-rt-worker(4102) S futex_do_wait syscall=202`
impl Display for Thread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", Value(&format!("{}({})", self.name, self.tid)), self.state)?;
        if let Some(channel) = &self.wait_channel {
            write!(f, " {}", Value(channel))?;
        }
        if let Some(call) = self.syscall {
            write!(f, " syscall={call}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_thread_that_waits_is_seen_waiting() {
        let (started, is_started) = mpsc::channel();
        let (_end, ended) = mpsc::channel::<()>();
        let waiting = std::thread::Builder::new().name("evil \n=name".into());
        waiting
            .spawn(move || {
                started.send(nix::unistd::gettid().as_raw()).unwrap();
                ended.recv()
            })
            .unwrap();
        let tid: i32 = is_started.recv().unwrap();
        // It sends its id a moment before it waits.
        let seen = loop {
            let seen =
                Thread::all(usize::MAX).into_iter().find(|thread| thread.tid == tid).unwrap();
            if seen.state == 'S' {
                break seen;
            }
        };
        assert_eq!(seen.name, "evil \n=name");
        assert!(seen.to_string().starts_with(&format!("\"evil \\n=name({tid})\" S")), "{seen}");
        assert!(
            Thread::all(usize::MAX).iter().any(|thread| thread.tid == std::process::id() as i32)
        );
        assert_eq!(Thread::all(1).len(), 1);
    }
}
