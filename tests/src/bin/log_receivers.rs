//! A guarded program with a choice of loggers and subscribers, to test where the guard's events go.
//!
//! `log_receivers LOGGER SUBSCRIBER ACTION FILE`. The logger of the crate `log` writes to FILE, and the
//! subscriber to stdout. `log_receivers` lists what they can be.
//!
//! ACTION is
//!
//! - `signal`: waits for a signal. One phase times out, and one fails;
//! - `fail`: the service fails after the stop has begun;
//! - `never`: never calls `run()`;
//! - `early`: drops the future of `run()` while a phase runs;
//! - `panic`: panics before it calls `run()`;
//! - `two`: has two guards.

#![forbid(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use forensics_tokio::ShutdownGuard;
use forensics_tokio::logging::JournaldLayer;
use tracing::Subscriber;
use tracing::instrument::WithSubscriber;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::{DefaultGuard, set_default, set_global_default};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, fmt, reload};

const USAGE: &str = "usage: log_receivers none|env_logger|simplelog|fern|errors|off|blocks|bridge|late \
    none|global|scoped|was_scoped|filtered|errors|off|silent|json|both|late|reload|boxed|reloaded|\
    per_layer|per_layer_filtered|per_layer_dynamic|at_run|\
    journald|journald_and_text|tracing_journald ACTION FILE";

/// What is set up only after the guard.
type Late = Vec<Box<dyn FnOnce() -> Result<(), Box<dyn Error>>>>;

/// A logger that blocks forever as soon as it is told that a stop has begun.
struct Blocks;

impl log::Log for Blocks {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        while record.args().to_string().starts_with("Shutdown context") {
            std::thread::park();
        }
    }

    fn flush(&self) {}
}

fn set_logger(kind: &str, file: File, late: &mut Late) -> Result<(), Box<dyn Error>> {
    let info = log::LevelFilter::Info;
    match kind {
        "none" => {}
        "env_logger" | "errors" | "off" => env_logger::Builder::new()
            .filter_level(match kind {
                "errors" => log::LevelFilter::Error,
                "off" => log::LevelFilter::Off,
                _ => info,
            })
            .target(env_logger::Target::Pipe(Box::new(file)))
            .init(),
        "simplelog" => simplelog::WriteLogger::init(info, simplelog::Config::default(), file)?,
        "fern" => fern::Dispatch::new()
            .level(info)
            .format(|out, text, record| {
                out.finish(format_args!("[{} {}] {text}", record.level(), record.target()));
            })
            .chain(file)
            .apply()?,
        "blocks" => {
            log::set_boxed_logger(Box::new(Blocks))?;
            log::set_max_level(info);
        }
        "late" => late.push(Box::new(move || {
            let logger = simplelog::WriteLogger::new(info, simplelog::Config::default(), file);
            log::set_boxed_logger(logger)?;
            log::set_max_level(info);
            Ok(())
        })),
        // Passes records on to the subscriber.
        "bridge" => tracing_log::LogTracer::init()?,
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

fn lines() -> impl Subscriber + Send + Sync {
    tracing_subscriber::fmt().with_ansi(false).finish()
}

fn layer<S: Subscriber + for<'a> LookupSpan<'a>>() -> fmt::Layer<S> {
    fmt::layer().with_ansi(false)
}

/// Sets the subscriber. Returns it if it is only for this thread.
fn set_subscriber(kind: &str, late: &mut Late) -> Result<Option<DefaultGuard>, Box<dyn Error>> {
    let (registry, info) = (tracing_subscriber::registry(), LevelFilter::INFO);
    match kind {
        "none" | "at_run" => {}
        "global" => set_global_default(lines())?,
        "scoped" => return Ok(Some(set_default(lines()))),
        "was_scoped" => drop(set_default(lines())),
        "late" => late.push(Box::new(|| Ok(set_global_default(lines())?))),
        "filtered" | "errors" | "off" => {
            let filter =
                if kind == "filtered" { "log_receivers=debug" } else { kind.trim_end_matches('s') };
            let lines = tracing_subscriber::fmt().with_ansi(false).with_env_filter(filter);
            set_global_default(lines.finish())?;
        }
        // A filter that is replaced after the guard is installed.
        "reload" => {
            let (filter, handle) = reload::Layer::new(EnvFilter::new("log_receivers=debug"));
            set_global_default(registry.with(filter).with(layer()))?;
            late.push(Box::new(move || Ok(handle.reload(EnvFilter::new("info"))?)));
        }
        "boxed" => set_global_default(registry.with(info).with(layer().boxed()))?,
        "reloaded" => set_global_default(registry.with(info).with(reload::Layer::new(layer()).0))?,
        "per_layer" => set_global_default(registry.with(layer().with_filter(info)))?,
        // A filter that depends on the current span wants every event at first.
        "per_layer_filtered" | "per_layer_dynamic" => {
            let is_dynamic = kind == "per_layer_dynamic";
            let request = if is_dynamic { ",log_receivers[request]=trace" } else { "" };
            let filter = EnvFilter::new(format!("log_receivers=debug{request}"));
            set_global_default(registry.with(layer().with_filter(filter)))?;
        }
        // Receives everything and shows nothing, as a subscriber that only exports traces.
        "silent" => set_global_default(registry.with(EnvFilter::new("info")))?,
        "json" => set_global_default(tracing_subscriber::fmt().json().finish())?,
        // Text to stdout, and JSON to stderr.
        "both" => {
            let json = fmt::layer().json().with_writer(io::stderr);
            set_global_default(registry.with(info).with(layer()).with(json))?;
        }
        "journald" => set_global_default(registry.with(info).with(JournaldLayer::connect()?))?,
        "journald_and_text" => {
            let journal = JournaldLayer::connect()?;
            set_global_default(registry.with(info).with(journal).with(layer()))?;
        }
        "tracing_journald" => {
            set_global_default(registry.with(info).with(tracing_journald::layer()?))?;
        }
        _ => return Err(USAGE.into()),
    }
    Ok(None)
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [logger, subscriber, action, file] = arguments.as_slice() else {
        return Err(USAGE.into());
    };
    let mut late = Late::new();
    set_logger(logger, File::create(file)?, &mut late)?;
    let scope = set_subscriber(subscriber, &mut late)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let code = runtime.block_on(run(action, late, subscriber == "at_run"))?;
    drop(scope);
    Ok(code)
}

async fn run(action: &str, late: Late, at_run: bool) -> Result<ExitCode, Box<dyn Error>> {
    let guard =
        ShutdownGuard::builder("log_receivers").deadline(Duration::from_secs(5)).install()?;
    late.into_iter().try_for_each(|set_up| set_up())?;
    guard.phase("work", async |_| {
        log::info!("a record of the service, in its phase");
        tracing::info!("an event of the service, in its phase");
    });
    let stop = guard.handle();
    match action {
        "signal" => {
            guard
                .phase("drain", |_| std::future::pending::<()>())
                .timeout(Duration::from_millis(20));
            guard.phase("flush", async |_| Err::<(), _>("disk full"));
            let token = guard.token();
            // Ready only when it runs, because a signal before that finds no subscriber of `run`.
            let run = guard.run(async move {
                ready()?;
                token.cancelled().await;
                io::Result::Ok(())
            });
            let report = if at_run { run.with_subscriber(lines()).await } else { run.await };
            log::info!("a record of the service, at its end");
            tracing::info!("an event of the service, at its end");
            Ok(report.exit_code())
        }
        "fail" => {
            ready()?;
            let token = guard.token();
            let service = async move {
                token.cancelled().await;
                Err::<(), _>("accept failed")
            };
            guard.phase("ended", async |cx| cx.service_ended().await);
            Ok(guard.run(service).await.exit_code())
        }
        "never" => Err("no address to listen on".into()),
        "early" => {
            let (started, runs) = tokio::sync::oneshot::channel();
            guard.phase("drain", async |_| {
                let _ = started.send(());
                std::future::pending::<()>().await;
            });
            guard.phase("db_close", async |_| {});
            stop.request_shutdown("test");
            tokio::select! {
                _ = guard.run(async {}) => {}
                _ = runs => {}
            }
            Ok(ExitCode::SUCCESS)
        }
        "panic" => panic!("no configuration"),
        "two" => {
            let other = ShutdownGuard::builder("other").install()?;
            other.phase("work", async |_| {});
            ready()?;
            let (one, two) = (guard.token(), other.token());
            let (one, two) =
                tokio::join!(guard.run(one.cancelled_owned()), other.run(two.cancelled_owned()));
            Ok(ExitCode::from(one.exit_status.max(two.exit_status)))
        }
        _ => Err(USAGE.into()),
    }
}

fn ready() -> io::Result<()> {
    writeln!(io::stdout(), "ready")?;
    io::stdout().flush()
}
