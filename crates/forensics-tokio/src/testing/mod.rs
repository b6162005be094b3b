//! Tests of your service's shutdown. Enable the feature `testing` in the dev-dependencies.
//!
//! [`TestHarness`] drives a guard inside a test. It installs no signal handler, needs no I/O
//! driver, and reads every time from the runtime's clock. So a teardown of minutes takes no time
//! under tokio's paused clock, and tests can run concurrently in one process. It cannot show what
//! happens outside the runtime. For that, [`Process`] starts your own program, sends it real
//! signals, and reads its record. `docs/testing.md` has three tests to copy.

mod output;
mod process;
mod sender;
mod test_harness;

pub use process::{Process, Run};
pub use sender::Sender;
pub use test_harness::{ForcedExit, TestHarness};
