//! What the guard adds to a service's build: build time, crates, the size of the binary.
//!
//! Two services in a temporary folder are built from scratch with the lock file of this workspace,
//! without the network. Both use what nearly all services use: tokio, tracing-subscriber and
//! serde_json.

#![forbid(unsafe_code)]

mod measure;

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const DEPENDENCIES: &str = r#"
tokio = { version = "1", features = ["macros", "rt-multi-thread", "signal", "sync", "time", "net", "process"] }
tracing = "0.1"
tracing-subscriber = { version = "0.3", default-features = false, features = ["fmt", "std"] }
serde_json = "1"
"#;

const BARE: &str = r#"
fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    tokio::runtime::Runtime::new()?.block_on(async {
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        terminate.recv().await;
        tracing::info!("{}", serde_json::json!({ "stopped": true }));
        Ok(())
    })
}
"#;

const GUARDED: &str = r#"
fn main() -> Result<forensics_tokio::ShutdownReport, Box<dyn std::error::Error>> {
    forensics_tokio::diagnostic::run_if_child();
    tracing_subscriber::fmt().init();
    tokio::runtime::Runtime::new()?.block_on(async {
        let guard = forensics_tokio::ShutdownGuard::builder("service")
            .record_dir("records")
            .diag_log("diag.log")
            .install()?;
        guard.phase("db_close", async |_| {});
        let service = guard.token().cancelled_owned();
        let report = guard.run(service).await;
        tracing::info!("{}", serde_json::json!({ "stopped": true }));
        Ok(report)
    })
}
"#;

/// The result of a build.
struct Built {
    crates: BTreeSet<String>,
    seconds: f64,
    bytes: u64,
}

fn main() -> Result<()> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guard = format!("forensics-tokio = {{ path = {ours:?}, default-features = false }}\n");
    let bare = build(ours, "", BARE)?;
    let guarded = build(ours, &guard, GUARDED)?;
    let added: Vec<_> = guarded.crates.difference(&bare.crates).map(String::as_str).collect();

    measure::title("Building with it (`cargo bench -p forensics-tokio --bench footprint`)");
    let ours = format!("{:.1} s", guarded.seconds);
    let without = format!("without the guard: {:.1} s", bare.seconds);
    let ratio = guarded.seconds / bare.seconds;
    measure::row("a clean release build", &ours, &without, ratio, 2.2, "×");
    let without = "the service without it";
    measure::report("crates more", &added.join(" "), without, added.len() as f64, "");
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    let size = format!("{:.0} KiB", kib(guarded.bytes));
    let without = format!("without the guard: {:.0} KiB", kib(bare.bytes));
    let more = kib(guarded.bytes) - kib(bare.bytes);
    measure::report("the stripped binary", &size, &without, more, " KiB more");
    Ok(())
}

fn build(ours: &Path, dependency: &str, main: &str) -> Result<Built> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    fs::create_dir(dir.join("src"))?;
    fs::write(dir.join("src/main.rs"), main)?;
    let manifest = format!(
        "[package]\nname = \"service\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\
         [dependencies]\n{dependency}{DEPENDENCIES}\n[profile.release]\nstrip = true\n[workspace]\n"
    );
    fs::write(dir.join("Cargo.toml"), manifest)?;
    // The lock file of the workspace, or of the package if this is a published one.
    let locks = ours.ancestors().map(|dir| dir.join("Cargo.lock"));
    let lock = locks.into_iter().find(|lock| lock.exists()).ok_or("there is no Cargo.lock")?;
    fs::copy(lock, dir.join("Cargo.lock"))?;
    let cargo = |arguments: &[&str]| -> Result<String> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let output = Command::new(cargo)
            .args(arguments)
            .arg("--offline")
            .current_dir(dir)
            .env("CARGO_TARGET_DIR", dir.join("target"))
            .output()?;
        if output.status.success() {
            Ok(String::from_utf8(output.stdout)?)
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned().into())
        }
    };
    let tree = cargo(&["tree", "--edges=normal,build", "--prefix=none", "--no-dedupe"])?;
    let crates = tree.lines().filter_map(|line| line.split(' ').next());
    let crates = crates.filter(|name| !name.is_empty()).map(str::to_owned).collect();
    let begin = Instant::now();
    cargo(&["build", "--release"])?;
    let seconds = begin.elapsed().as_secs_f64();
    let bytes = fs::metadata(dir.join("target/release/service"))?.len();
    Ok(Built { crates, seconds, bytes })
}
