//! For the tests of your own shutdown (feature `testing`; a dev-dependency's, not a service's).
//!
//! [`TestHarness`] drives a guard inside a test: no signal handler, no keeper, no I/O driver, and the
//! runtime's clock for everything, so that a teardown of minutes is tested in no time under
//! tokio's paused clock, and tests run side by side in one process. What it cannot show is what
//! happens outside the runtime; for that [`Process`] starts your own program, sends it real signals,
//! and reads the record it leaves. `docs/testing.md` has three tests to copy.

mod output;
mod process;
mod sender;
mod test_harness;

pub use process::{Process, Run};
pub use sender::Sender;
pub use test_harness::{ForcedExit, TestHarness};
