//! The program that receives the signals in the tests of senders.
//!
//! Prints `ready PID` once its guard is installed, and the report as one line of JSON after the
//! stop. Exits with the report's status. Its log goes to stderr.
//!
//! | option | what it does |
//! |---|---|
//! | `--signals NAME,…` | guards these signals instead of the default ones |
//! | `--hold` | has a phase that lasts until SIGWINCH arrives, so that it receives later signals |
//! | `--no-descriptors` | cannot open files between `ready` and its teardown |
//! | `--reload` | takes a SIGHUP for a reload, and prints `reloaded` |
//! | `--own kill\|raise\|timer` | sends itself a SIGTERM in this way |

#![forbid(unsafe_code)]

use std::error::Error;
use std::time::Duration;

use forensics_tokio::core::capture::Signal;
use forensics_tokio::{ShutdownGuard, ShutdownReport};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigEvent, SigevNotify, Signal as Nix, kill, raise};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

/// It ends by itself after this time, so that no process remains after a failed test.
const LIFETIME: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Options {
    signals: Option<Vec<Signal>>,
    hold: bool,
    no_descriptors: bool,
    reload: bool,
    own: Option<String>,
}

fn main() -> Result<ShutdownReport, Box<dyn Error>> {
    let options = Options::parse()?;
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(serve(options))
}

async fn serve(options: Options) -> Result<ShutdownReport, Box<dyn Error>> {
    let mut builder = ShutdownGuard::builder("subject");
    if let Some(signals) = options.signals {
        builder = builder.signals(signals);
    }
    let guard = builder.install()?;
    let mut release = signal(SignalKind::window_change())?;
    let descriptors = options.no_descriptors.then(Descriptors::refuse).transpose()?;
    guard
        .phase("hold", async move |_| {
            drop(descriptors);
            if options.hold {
                release.recv().await;
            }
        })
        // The reserve lets it continue after a second signal.
        .reserve(Duration::from_secs(40));

    println!("ready {}", std::process::id());
    let timer = options.own.as_deref().map(signal_ourselves).transpose()?;
    let (token, handle) = (guard.token(), guard.handle());
    if options.reload {
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                let reloading = handle.reloading();
                println!("reloaded");
                drop(reloading);
            }
        });
    }
    let report = guard
        .run(async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = tokio::time::sleep(LIFETIME) => {}
            }
        })
        .await;
    drop(timer);
    println!("{}", serde_json::to_string(&report)?);
    Ok(report)
}

impl Options {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let mut options = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--signals" => {
                    let signals = value()?.split(',').map(str::parse).collect::<Result<_, _>>()?;
                    options.signals = Some(signals);
                }
                "--hold" => options.hold = true,
                "--no-descriptors" => options.no_descriptors = true,
                "--reload" => options.reload = true,
                "--own" => options.own = Some(value()?),
                _ => return Err(format!("unknown option {argument}").into()),
            }
        }
        Ok(options)
    }
}

/// While this exists, no descriptor can be opened, because the limit is below any number that
/// becomes free.
struct Descriptors {
    soft: u64,
    hard: u64,
}

impl Descriptors {
    fn refuse() -> nix::Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        // The numbers below are our standard streams.
        setrlimit(Resource::RLIMIT_NOFILE, 3, hard)?;
        Ok(Self { soft, hard })
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        setrlimit(Resource::RLIMIT_NOFILE, self.soft, self.hard)
            .expect("a limit can be raised up to the hard one");
    }
}

/// Returns a timer that must not be dropped before the signal has arrived.
fn signal_ourselves(how: &str) -> Result<Option<Timer>, Box<dyn Error>> {
    match how {
        "kill" => kill(Pid::this(), Nix::SIGTERM)?,
        "raise" => raise(Nix::SIGTERM)?,
        "timer" => {
            let notify = SigevNotify::SigevSignal { signal: Nix::SIGTERM, si_value: 0 };
            let mut timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(notify))?;
            let soon = Expiration::OneShot(Duration::from_millis(1).into());
            timer.set(soon, TimerSetTimeFlags::empty())?;
            return Ok(Some(timer));
        }
        _ => return Err(format!("unknown way to signal ourselves: {how}").into()),
    }
    Ok(None)
}
