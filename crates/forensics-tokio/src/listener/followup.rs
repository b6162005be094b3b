//! What takes longer to find out than the signal may wait: why systemd stops us.
//!
//! Asked once the stop is announced, beside the phases and delaying none; said as one event, within
//! a second or not at all.

use std::time::Duration;

use forensics_core::cause::Cause;
use forensics_core::context::ShutdownContext;
use forensics_core::systemd::{Why, why};

use crate::voice::Voice;
use crate::{events, systemctl};

/// How long each question may take; two are asked at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// Asks systemd why it stops us, where it may be the one who does.
pub(crate) async fn ask(context: &ShutdownContext, voice: &Voice) {
    let asked = matches!(context.cause(), Cause::Systemd | Cause::Watchdog | Cause::Unknown);
    let unit = context.systemd.unit.clone().filter(|unit| asked && unit.has_stop_timeout());
    let Some(unit) = unit else { return };
    let (properties, jobs) = tokio::join!(
        systemctl::show(&unit, ANSWER_LIMIT),
        systemctl::list_jobs(unit.manager, ANSWER_LIMIT),
    );
    let (properties, jobs) = match (properties, jobs) {
        (Ok(properties), Ok(jobs)) => (properties, jobs),
        (Err(e), _) | (_, Err(e)) => return voice.say(move || events::unexplained(&e)),
    };
    if let Some(why) = why(&unit.unit, &properties, &jobs) {
        let cause = match why {
            Why::Reboot { .. } => Cause::Reboot,
            Why::Watchdog => Cause::Watchdog,
            _ => Cause::Systemd,
        };
        voice.say(move || events::why(cause, &unit.unit, &why));
    }
}
