//! An adapter to a chat service: a task that must deliver its message before it ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::store::Store;

/// A stand-in for a connection to a chat service.
pub(crate) struct Adapter {
    stop: oneshot::Sender<()>,
    /// Ends with the number of messages delivered.
    task: JoinHandle<u64>,
}

impl Adapter {
    /// Connects, and delivers a message twice a second until it is stopped.
    pub(crate) fn start(name: &'static str, store: Arc<Store>) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut delivered = 0;
            let mut messages = tokio::time::interval(Duration::from_millis(500));
            loop {
                tokio::select! {
                    _ = messages.tick() => {}
                    _ = &mut stopped => return delivered,
                }
                if store.insert(name).is_ok() {
                    delivered += 1;
                }
            }
        });
        Self { stop, task }
    }

    /// Disconnects when the current message is delivered. Returns how many were delivered.
    pub(crate) async fn stop(self) -> u64 {
        // An error means that the task has already ended.
        let _ = self.stop.send(());
        self.task.await.unwrap_or(0)
    }
}
