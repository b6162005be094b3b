//! Signals that the process itself has sent.

use forensics_tokio::core::cause::Cause;

use crate::subject::Subject;

#[test]
fn a_signal_from_itself_is_distinguished_from_one_of_its_timer() {
    let cases = [
        ("kill", Cause::SelfSent, "the sender is this process", Some("subject")),
        ("raise", Cause::SelfSent, "the sender is this process", Some("subject")),
        ("timer", Cause::Timer, "SI_TIMER: a timer of this process", None),
    ];
    for (how, cause, evidence, name) in cases {
        let subject = Subject::start(&["--own", how]);
        let pid = subject.pid.to_string();
        let stop = subject.stopped();
        stop.assert_cause(cause, evidence);
        assert_eq!(stop.field("sender_name").as_deref(), name);
        assert_eq!(stop.field("sender_pid"), name.map(|_| pid));
    }
}
