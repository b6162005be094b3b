//! Runs the tests that docs/testing.md gives to copy, and checks that the page has the same code.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

#[allow(unreachable_pub)] // As in the reader's own crate.
mod service {
    use forensics_tokio::{Builder, ShutdownGuard, ShutdownReport};
    use std::time::Duration;

    /// The settings of the service's shutdown.
    pub fn builder() -> Builder {
        ShutdownGuard::builder("gateway").deadline(Duration::from_secs(45))
    }

    /// The service, and its teardown.
    pub async fn serve(guard: ShutdownGuard) -> ShutdownReport {
        guard.phase("drain", async |cx| cx.service_ended().await).timeout(guard.drain_timeout());
        guard
            .phase("db_close", async |_| { /* pool.close().await */ })
            .reserve(Duration::from_secs(5));
        let server = server(guard.token());
        guard.run(server).await
    }

    use tokio_util::sync::CancellationToken;

    /// A service that never ends, so that the drain uses all its time.
    async fn server(_: CancellationToken) {
        std::future::pending::<()>().await;
    }
}

mod stopped_by_systemd {
    use crate::service::{builder, serve};

    use forensics_tokio::testing::{Sender, TestHarness};
    use forensics_tokio::{Outcome, Signal};
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn stopped_by_systemd_the_database_is_closed_in_time() {
        let (harness, guard) = TestHarness::install(builder()).unwrap();
        harness.stop_timeout(Duration::from_secs(20)); // the unit's TimeoutStopSec=
        harness.signal_from(Signal::TERM, &Sender::systemd());

        let report = harness.run_to_exit(serve(guard)).await.expect("no forced end");
        assert_eq!(report.context.cause().to_string(), "systemd");
        assert_eq!(report.phase("db_close").unwrap().outcome, Outcome::Ok);
        assert!(report.total <= Duration::from_secs(19), "{:?}", report.total);
        assert_eq!(report.exit_status, 0);
    }
}

mod impatient {
    use crate::service::{builder, serve};

    use forensics_tokio::testing::TestHarness;
    use forensics_tokio::{Outcome, Signal};
    use std::time::Duration;
    use tokio::time::sleep;

    #[tokio::test(start_paused = true)]
    async fn a_second_ctrl_c_still_closes_the_database() {
        let (harness, guard) = TestHarness::install(builder()).unwrap();
        let operator = async {
            harness.signal(Signal::INT);
            sleep(Duration::from_secs(3)).await;
            harness.signal(Signal::INT);
        };
        let (ended, ()) = tokio::join!(harness.run_to_exit(serve(guard)), operator);
        let report = ended.expect("no forced end");
        assert_eq!(report.phase("drain").unwrap().outcome, Outcome::CutShort);
        assert_eq!(report.phase("db_close").unwrap().outcome, Outcome::Ok);
    }
}

mod the_program {
    use forensics_tests::example;

    use forensics_tokio::Signal;
    use forensics_tokio::core::record::PhaseOutcome;
    use forensics_tokio::testing::Process;
    use std::process::Command;

    #[test]
    fn sigterm_drains_and_ends_with_0() {
        let service = Process::start(&mut Command::new(example("minimal")));
        service.wait_for_stdout("working");
        service.signal(Signal::TERM);
        let run = service.wait();
        assert_eq!(run.code(), 0, "{}", run.stderr);
        assert_eq!(run.outcomes(), [("drain", PhaseOutcome::Ok), ("db_close", PhaseOutcome::Ok)]);
        assert!(run.verdict.unwrap().is_clean());
    }
}

/// The lines of code in a text, without indentation, and with our binary instead of the reader's.
fn lines(code: &str) -> Vec<String> {
    let ours = code.replace("env!(\"CARGO_BIN_EXE_my-service\")", "example(\"minimal\")");
    ours.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_code_of_the_page_is_the_code_of_these_tests() {
    let page = include_str!("../../docs/testing.md");
    let ran = lines(include_str!("testing_page.rs")).join("\n");
    let blocks = page.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next());
    let blocks: Vec<String> = blocks.map(|block| lines(block).join("\n")).collect();
    assert_eq!(blocks.len(), 4);
    for block in blocks {
        assert!(ran.contains(&block), "not run here:\n{block}");
    }
}
