//! Command lines with secrets. Redaction never panics, loses no argument, and hides a password that
//! follows a name such as `--password`, whatever precedes it.

use forensics_core::secret::{REDACTED, redact};

const PASSWORD: &str = "hunter2-CANARY";

pub(crate) fn check(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if text.contains(PASSWORD) {
        return;
    }
    let shown = redact(&text);
    let arguments = |text: &str| text.matches('\0').count();
    assert_eq!(arguments(&shown), arguments(&text));
    // A record's text may have been redacted before.
    let again = redact(&shown);
    assert_eq!(again, shown, "a second redaction changes the text");

    for option in [
        "--password=",
        "--password\0",
        "DB_PASSWORD=",
        "{\"password\" : [\"",
        "Authorization: Basic ",
        "postgres://ops:",
    ] {
        let end = if option.ends_with(':') { "@db/app" } else { "" };
        let shown = redact(&format!("{text}\0{option}{PASSWORD}{end}\0")).into_owned();
        assert!(!shown.contains(PASSWORD), "{shown:?}");
        assert!(shown.contains(REDACTED), "{shown:?}");
    }
}
