//! What the guard and its tasks share, and the diagnostic that one starts and the other awaits.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use forensics_core::context::{ShutdownContext, StartupInfo};
use forensics_core::record::{Diag, DiagState, Verdict};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::diag::Looked;
use crate::keeper::vigil::last_words_before;
use crate::stop::{Outlets, Stop};
use crate::teardown::plan::Plan;
use crate::{diag, events, task};

/// How long the diagnostic's task has to end its process and to say so.
const DIAGNOSTIC_ENDS: Duration = Duration::from_millis(100);

/// What the guard, its tasks and the keeper share.
pub(crate) struct Shared {
    pub(crate) config: Arc<Config>,
    pub(crate) stop: Arc<Stop>,
    pub(crate) token: CancellationToken,
    pub(crate) plan: Arc<Plan>,
    diagnostic: Mutex<Option<JoinHandle<()>>>,
    /// Tells the diagnostic that no time is left for it.
    diagnostic_deadline: Arc<Notify>,
    pub(crate) has_run: AtomicBool,
    pub(crate) previous: Option<Verdict>,
}

impl Shared {
    pub(crate) fn new(
        config: Config,
        startup: StartupInfo,
        outlets: Outlets,
        previous: Option<Verdict>,
        runtime: Handle,
    ) -> Self {
        let config = Arc::new(config);
        let stop = Arc::new(Stop::new(startup, config.clone(), outlets, runtime));
        Self {
            plan: Arc::new(Plan::new(stop.voice.clone())),
            token: stop.token.clone(),
            stop,
            config,
            diagnostic: Mutex::new(None),
            diagnostic_deadline: Arc::default(),
            has_run: AtomicBool::new(false),
            previous,
        }
    }

    /// Starts the diagnostic, where there is to be one. In a task of the runtime.
    pub(crate) fn start_diagnostic(&self, context: &ShutdownContext) {
        let Some(log) = &self.config.diag_log else { return };
        let plan = diag::Plan {
            command: self.config.diag_command.clone(),
            log: log.clone(),
            service: self.config.service.clone(),
            unit: context.systemd.unit.clone(),
            deadline: self.diagnostic_deadline.clone(),
        };
        let line = context.to_string();
        let stop = self.stop.clone();
        let task = task::spawn(async move {
            let path = plan.log.clone();
            let note = |state, error| {
                let mut event = Diag::new(state);
                event.path = Some(path.to_string_lossy().into_owned());
                event.error = error;
                stop.black_box.diag(event);
            };
            note(DiagState::Started, None);
            match diag::run(plan, line).await {
                Ok(Looked::Elsewhere { unit }) => {
                    stop.voice.say(move || events::diagnostic_elsewhere(&path, &unit));
                }
                Ok(Looked::Here) => {
                    note(DiagState::Finished, None);
                    stop.voice.say(move || events::diagnostic_finished(&path));
                }
                Err(e) => {
                    note(e.state(), Some(e.to_string()));
                    stop.voice.say(move || events::diagnostic_failed(&path, &e));
                }
            }
        });
        *self.diagnostic.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// Waits for the diagnostic, lest it be lost with our cgroup. It is ended before the deadline, and
    /// before the keeper says that this is near: what is left to do by then is to end.
    pub(crate) async fn wait_for_diagnostic(&self, deadline: Instant) {
        let task = self.diagnostic.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut task) = task else { return };
        let before = last_words_before(self.stop.allowed()) + DIAGNOSTIC_ENDS;
        let end = deadline.checked_sub(before).unwrap_or(deadline);
        if timeout_at(end, &mut task).await.is_ok() {
            return;
        }
        self.diagnostic_deadline.notify_one();
        if timeout(DIAGNOSTIC_ENDS, task).await.is_err() {
            self.stop.voice.say(events::diagnostic_left_behind);
        }
    }
}
