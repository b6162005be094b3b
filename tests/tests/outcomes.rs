//! What a phase or a service returns decides its outcome, however deep the error is.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use forensics_tokio::testing::TestHarness;
use forensics_tokio::{Outcome, ServiceOutcome, ShutdownGuard};
use tokio::task::{JoinSet, spawn};
use tokio::time::timeout;

fn flush() -> io::Result<()> {
    Err(io::Error::other("queue not flushed"))
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn an_error_inside_what_a_phase_returns_is_its_outcome() {
    let builder = ShutdownGuard::builder("test");
    let (harness, guard) = TestHarness::install(builder).unwrap();
    let task = spawn(async { flush() });
    guard.phase("handle", |_| task);
    guard.phase("timeout", |_| timeout(LONG, async { flush() }));
    let task = spawn(async { flush() });
    guard.phase("timeout_of_handle", |_| timeout(LONG, task));
    let tasks = || JoinSet::from_iter([Ok(()), flush()].map(|end| async { end }));
    guard.phase("join_all", async move |_| tasks().join_all().await);
    guard.phase("join_next", async |_| JoinSet::from_iter([async { flush() }]).join_next().await);
    guard.phase("join", async |_| tokio::join!(async { flush() }, async {}));
    guard.phase("panicked", async |_| spawn(async { panic!("no queue") }).await);
    guard.phase("elapsed", |_| timeout(Duration::from_secs(1), std::future::pending::<()>()));
    guard
        .phase("ok", async |_| JoinSet::from_iter([async { io::Result::Ok(()) }]).join_all().await);
    guard.handle().request_shutdown("test");
    let service = spawn(async { flush() });
    let report = harness.run_to_exit(guard.run(service)).await.unwrap();
    let flushed = "queue not flushed";
    let cases = [
        ("handle", Some(flushed)),
        ("timeout", Some(flushed)),
        ("timeout_of_handle", Some(flushed)),
        ("join_all", Some(flushed)),
        ("join_next", Some(flushed)),
        ("join", Some(flushed)),
        ("panicked", Some("no queue")),
        ("elapsed", Some("deadline has elapsed")),
        ("ok", None),
    ];
    for (name, error) in cases {
        let phase = report.phase(name).unwrap();
        let expected = if error.is_some() { Outcome::Failed } else { Outcome::Ok };
        assert_eq!(phase.outcome, expected, "{name}");
        let shown = phase.error.as_deref().unwrap_or_default();
        assert!(shown.contains(error.unwrap_or_default()), "{name}: {shown}");
    }
    assert_eq!(report.service_outcome, ServiceOutcome::Failed(flushed.to_owned()));
    assert_eq!(report.exit_status, 1);
}

/// Each is what a phase returns, and part of the compiler's error.
const NOT_OUTCOMES: [(&str, &str); 6] = [
    ("7", "a phase or service cannot return `{integer}`"),
    ("String::new()", "a phase or service cannot return `String`"),
    ("Ok::<usize, std::io::Error>(7)", "a phase or service cannot return `usize`"),
    ("Some(true)", "a phase or service cannot return `bool`"),
    ("vec![Ok::<u64, std::io::Error>(7)]", "a phase or service cannot return `u64`"),
    ("Err::<(), u8>(7)", "the trait `std::error::Error` is not implemented for `u8`"),
];

#[test]
fn a_type_that_cannot_be_an_outcome_does_not_compile_and_the_error_says_what_to_return() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let manifest = format!(
        "[package]\nname = \"not-outcomes\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n\
         forensics-tokio = {{ path = {:?}, features = [\"tower\"] }}\n",
        root.join("crates/forensics-tokio")
    );
    fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
    fs::copy(root.join("Cargo.lock"), dir.path().join("Cargo.lock")).unwrap();
    fs::create_dir(dir.path().join("src")).unwrap();
    let phase = |(value, _)| format!("    guard.phase(\"x\", async |_| {value});\n");
    let phases: String = NOT_OUTCOMES.into_iter().map(phase).collect();
    let code = format!("pub fn phases(guard: &forensics_tokio::ShutdownGuard) {{\n{phases}}}\n");
    fs::write(dir.path().join("src/lib.rs"), code).unwrap();

    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // In the same target folder, so that most dependencies are already built.
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().join("guide");
    let checked = Command::new(cargo)
        .current_dir(dir.path())
        .args(["check", "--offline", "--color=never", "--target-dir"])
        .arg(target)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(!checked.status.success(), "{said}");
    for (value, error) in NOT_OUTCOMES {
        assert!(said.contains(error), "{value}: {said}");
    }
    assert_eq!(said.matches("error[E0277]").count(), NOT_OUTCOMES.len(), "{said}");
    assert!(said.contains("return `()`, or a `Result<(), E>`"), "{said}");
    assert!(said.contains("`.map_err(|e| e.to_string())`"), "{said}");
}
