//! The cost of the teardown itself: phases that do nothing, and many tasks drained in one phase.
//!
//! It is compared with tokio-graceful-shutdown that stops the same number of subsystems. A bare
//! `JoinSet` that runs the same number of empty tasks, one after another or all at once, is shown
//! for orientation. There is no subscriber and no record. A separate row shows the cost of a
//! record.

#![forbid(unsafe_code)]

mod measure;

use std::error::Error;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use forensics_tokio::ShutdownGuard;
use measure::{median, nanos};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio_graceful_shutdown::{SubsystemBuilder, SubsystemHandle, Toplevel};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const IN_FLIGHT: usize = 100_000;

fn main() -> Result<()> {
    let runtime = Runtime::new()?;
    // For a profiler: `teardown order 1000`, `teardown group 1000`.
    if let [how @ ("order" | "group"), phases] =
        std::env::args().skip(1).collect::<Vec<_>>().iter().map(String::as_str).collect::<Vec<_>>()
            [..]
    {
        println!(
            "{}",
            measure::time(on(&runtime, guarded(phases.parse()?, how == "group", None)) as f64)
        );
        return Ok(());
    }
    measure::title("Teardown (`cargo bench -p forensics-tokio --bench teardown`)");
    for group in [false, true] {
        let how = if group { "in one group" } else { "in order" };
        let mut points = Vec::new();
        for (phases, trials, target) in [(10, 300, 1.0), (1_000, 30, 1.5), (10_000, 25, 1.5)] {
            let [ours, peer, floor] = compare(&runtime, phases, trials, group);
            let what = format!("{phases} phases {how}");
            measure::ratio(&what, ours, "tokio-graceful-shutdown", peer, target);
            measure::report_ratio(&what, ours, "a bare JoinSet", floor);
            points.push((phases as f64, ours));
        }
        measure::growth(&format!("phases {how}"), "phase", &points);
    }
    recorded(&runtime)?;
    drain(&runtime);
    Ok(())
}

/// The medians of the guard, tokio-graceful-shutdown and a bare `JoinSet`, in nanoseconds.
fn compare(runtime: &Runtime, phases: usize, trials: usize, group: bool) -> [f64; 3] {
    let samples = measure::in_turns(
        trials,
        [
            &mut || on(runtime, guarded(phases, group, None)),
            &mut || on(runtime, peer(phases)),
            &mut || on(runtime, bare(phases, group)),
        ],
    );
    samples.map(|samples| median(&samples))
}

/// Runs `work` as a task and returns the duration that it measured. `block_on` alone would run it on
/// this thread and not on a worker.
fn on(runtime: &Runtime, work: impl Future<Output = Duration> + Send + 'static) -> u64 {
    let took = runtime.block_on(async { tokio::spawn(work).await });
    nanos(took.unwrap_or_default())
}

async fn guarded(phases: usize, group: bool, records: Option<PathBuf>) -> Duration {
    let mut builder = ShutdownGuard::builder("bench");
    if let Some(dir) = records {
        builder = builder.record_dir(dir);
    }
    let Ok(guard) = builder.install() else { return Duration::ZERO };
    if group {
        guard.group("all", |group| {
            for n in 0..phases {
                group.phase(n.to_string(), async |_| {});
            }
        });
    } else {
        for n in 0..phases {
            guard.phase(n.to_string(), async |_| {});
        }
    }
    guard.handle().request_shutdown("bench");
    let report = guard.run(async {}).await;
    assert!(!report.is_failed());
    let ends = report.phases.iter().map(|phase| phase.started_after + phase.duration);
    let begin = report.phases.first().map_or(Duration::ZERO, |phase| phase.started_after);
    ends.max().unwrap_or_default() - begin
}

async fn peer(subsystems: usize) -> Duration {
    let begin = Arc::new(Mutex::new(Instant::now()));
    let noted = begin.clone();
    let asking = async move |top: &mut SubsystemHandle| {
        // By now all have started.
        tokio::time::sleep(Duration::from_millis(5)).await;
        if let Ok(mut begin) = noted.lock() {
            *begin = Instant::now();
        }
        top.request_shutdown();
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    };
    let toplevel = Toplevel::new(async move |top: &mut SubsystemHandle| {
        for n in 0..subsystems {
            top.start(SubsystemBuilder::new(n.to_string(), async |own: &mut SubsystemHandle| {
                own.on_shutdown_requested().await;
                Ok::<(), Box<dyn Error + Send + Sync>>(())
            }));
        }
        top.start(SubsystemBuilder::new("asking", asking));
    });
    let _: std::result::Result<(), _> =
        toplevel.handle_shutdown_requests(Duration::from_secs(60)).await;
    begin.lock().map(|begin| begin.elapsed()).unwrap_or_default()
}

async fn bare(tasks: usize, group: bool) -> Duration {
    let begin = Instant::now();
    let mut set = JoinSet::new();
    for _ in 0..tasks {
        set.spawn(async {});
        if !group {
            set.join_next().await;
        }
    }
    while set.join_next().await.is_some() {}
    begin.elapsed()
}

/// The additional cost of a record on the disk.
fn recorded(runtime: &Runtime) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let samples = measure::in_turns(
        10,
        [&mut || on(runtime, guarded(1_000, false, Some(dir.path().to_owned()))), &mut || {
            on(runtime, guarded(1_000, false, None))
        }],
    );
    let [with, without] = samples.map(|samples| median(&samples));
    let each = measure::time((with - without) / 1e3);
    measure::note(
        "1000 phases in order, recorded",
        &measure::time(with),
        &format!("{each} more each"),
    );
    Ok(())
}

/// Tasks that end when their token is cancelled, and the tracker that waits for them.
fn in_flight() -> (TaskTracker, CancellationToken) {
    let (tracker, token) = (TaskTracker::new(), CancellationToken::new());
    for _ in 0..IN_FLIGHT {
        let token = token.clone();
        tracker.spawn(async move { token.cancelled().await });
    }
    tracker.close();
    (tracker, token)
}

fn drain(runtime: &Runtime) {
    let guarded = async || {
        let Ok(guard) = ShutdownGuard::builder("bench").install() else { return Duration::ZERO };
        let (tracker, token) = in_flight();
        guard.phase("drain", async move |_| {
            token.cancel();
            tracker.wait().await;
        });
        guard.handle().request_shutdown("bench");
        let report = guard.run(async {}).await;
        report.phases.first().map_or(Duration::ZERO, |phase| phase.duration)
    };
    let bare = async || {
        let (tracker, token) = in_flight();
        let begin = Instant::now();
        token.cancel();
        tracker.wait().await;
        begin.elapsed()
    };
    let [ours, floor] =
        measure::in_turns(15, [&mut || on(runtime, guarded()), &mut || on(runtime, bare())]);
    let what = format!("{IN_FLIGHT} in-flight tasks drained in a phase");
    measure::ratio(&what, median(&ours), "TaskTracker alone", median(&floor), 1.1);
}
