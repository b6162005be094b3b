//! Tests of the machine without threads, a runtime or a clock.

#![allow(clippy::unwrap_used)] // A test's unwrap is an assertion.

mod exhaustive;
mod limit;
mod model;
mod table;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use forensics_core::capture::Signal;
use forensics_core::capture::{SiCode, SignalInfo};
use forensics_core::context::{ShutdownContext, StartupInfo, Trigger};
use tokio::time::Instant;

use super::*;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A context of which only the trigger is set.
fn context(trigger: Trigger) -> ShutdownContext {
    static STARTUP: OnceLock<ShutdownContext> = OnceLock::new();
    let base = STARTUP.get_or_init(|| {
        let trigger = Trigger::Request { reason: "test".to_owned() };
        ShutdownContext::capture(&StartupInfo::collect(), trigger, None)
    });
    let mut context = base.clone();
    context.trigger = Some(trigger);
    context
}

fn signal(at: Instant) -> Event {
    let caught = Caught::of(SignalInfo::new(Signal::TERM, SiCode::User));
    Event::SignalArrived { signal: Box::new(caught), at }
}

/// A machine and its time. Actions that only lead to another event are performed at once. All other
/// actions are left to the test.
#[derive(Clone)]
struct Driven {
    machine: Machine,
    start: Instant,
    now: Instant,
    /// The cause of every repeated signal.
    cause: Cause,
}

impl Driven {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        let machine = Machine::new(Arc::new(config), false, false);
        Self { machine, start: now, now, cause: Cause::Operator }
    }

    /// Handles an event and the events that follow from it. Returns all actions, in order.
    fn bring(&mut self, event: Event) -> Vec<Action> {
        let mut all = Vec::new();
        for action in self.machine.handle(event, self.now) {
            let follows = match &action {
                Action::CaptureContext { trigger, .. } => {
                    Some(Event::ContextCaptured(Box::new(context(trigger.clone()))))
                }
                Action::CompleteContext(context) => Some(Event::ContextCompleted(context.clone())),
                Action::ResolveSender(_, repeated) => {
                    let repeated = RepeatedSignal { cause: self.cause, ..*repeated.clone() };
                    Some(Event::SignalRepeated(Box::new(repeated)))
                }
                Action::ReportStall { what, stalled } => {
                    let (stalled, detail) = (stalled.clone(), what.clone());
                    Some(Event::StallDescribed { stalled, detail })
                }
                Action::Exit => {
                    let reason = self.machine.exit_reason().unwrap();
                    Some(Event::ExitDescribed(reason.text()))
                }
                _ => None,
            };
            all.push(action);
            all.extend(follows.into_iter().flat_map(|event| self.bring(event)));
        }
        all
    }

    fn phase(&mut self, name: &str) -> StepId {
        self.machine.plan.push(name, None, Work::Phase).0
    }

    fn group(&mut self, name: &str) -> StepId {
        self.machine.plan.push(name, None, Work::Group(Vec::new())).0
    }

    fn member(&mut self, group: StepId, name: &str) -> StepId {
        self.machine.plan.push(name, Some(group), Work::Phase).0
    }

    /// Advances the time to the next timer, if there is one, and handles a tick.
    fn tick(&mut self) -> Vec<Action> {
        if let Some(timer) = self.machine.awaited().timer {
            self.now = self.now.max(timer);
        }
        self.bring(Event::Tick)
    }
}

fn service_runs(machine: &Machine) -> bool {
    matches!(machine.service, Service::Running)
}

fn config() -> Config {
    let mut config = Config::new("test".to_owned());
    config.deadline = Some(Duration::from_secs(10));
    config
}
