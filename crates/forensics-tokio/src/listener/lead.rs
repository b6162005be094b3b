//! The lead: the time between a stop's beginning and the moment the token is cancelled.
//!
//! Endpoints and load balancers take seconds to notice that a service is not ready any more, and
//! send to it meanwhile. Whoever closes the listener at the signal turns those requests away. So
//! readiness ends at the signal, and the service only after the lead.

use tokio::time::sleep_until;

use crate::begun::{Begun, LeadEnd};
use crate::budget::Seconds;
use crate::events;
use crate::shared::Shared;

/// Waits the lead out, unless something ends it. Returns at once where there is none. Cancel safe.
pub(crate) async fn pass(shared: &Shared, begun: &Begun) {
    // What the phases have reserved is theirs.
    let lead = begun.lead.min(begun.allowed.saturating_sub(shared.plan.reserved()));
    if lead.is_zero() || shared.token.is_cancelled() {
        return;
    }
    let (voice, notifier) = (&shared.stop.voice, &shared.stop.notifier);
    voice.say(move || events::lead_started(lead));
    notifier.status(&format!("Stopping: lead of {}, still serving", Seconds(lead)));
    let why = tokio::select! {
        biased;
        why = shared.stop.lead_ended() => why,
        () = shared.token.cancelled() => LeadEnd::Token,
        () = sleep_until(begun.at + lead) => LeadEnd::Over,
    };
    // From here on a second signal asks for haste again.
    shared.stop.end_lead(why);
    let led = begun.at.elapsed();
    shared.stop.set_led(led);
    voice.say(move || events::lead_ended(led, why));
}
