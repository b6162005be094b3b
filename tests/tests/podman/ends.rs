//! What podman says about the end of a run: the rows `--inspect` of the table in
//! docs/who-killed-me.md.

use std::io::Write;
use std::process::{Command, Stdio};

use forensics_tests::ends::{assert_all, ends};
use forensics_tests::{forensics, until};

use crate::engine::{Engine, RECORDS};

/// What `forensics last --inspect` says about the container.
fn said(engine: &Engine, name: &str) -> String {
    until("it has ended", || engine.inspect(name, "{{.State.Status}}") == "exited");
    let inspection = engine.ok(&["inspect", "--type=container", name]);
    let mut last = Command::new(forensics());
    last.arg("last").arg(engine.shared().join("shutdown")).args(["--inspect", "-"]);
    last.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut last = last.spawn().unwrap();
    last.stdin.take().unwrap().write_all(inspection.as_bytes()).unwrap();
    let output = last.wait_with_output().unwrap();
    assert!(!output.stdout.is_empty(), "{name}: {output:?}\n{inspection}");
    String::from_utf8(output.stdout).unwrap()
}

fn until_listening(engine: &Engine, name: &str) {
    until("it listens", || engine.log(name).contains("listening on"));
}

/// Ends a container in the way of the row.
fn end(engine: &Engine, what: &str) -> String {
    let wedged = [RECORDS, "--wedge=drain", "--drain-timeout=60s"];
    match what {
        "SIGKILL by `podman kill`" => {
            let name = engine.run_detached(&[], &[RECORDS]);
            until_listening(engine, &name);
            engine.ok(&["kill", "--signal=KILL", &name]);
            name
        }
        "SIGKILL at the end of podman's `--stop-timeout`" => {
            let name = engine.run_detached(&["--stop-timeout=3"], &wedged);
            until_listening(engine, &name);
            engine.ok(&["stop", &name]);
            name
        }
        "a shell as process 1 that exited first" => {
            let script = format!("/bin/gateway {RECORDS} & read -r line </var/lib/gateway/end");
            let fifo = engine.shared().join("end");
            nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
            let name = engine.run_detached(&["--entrypoint", "/bin/sh"], &["-c", &script]);
            until_listening(engine, &name);
            std::fs::write(fifo, "\n").unwrap();
            name
        }
        what => panic!("no case for {what}"),
    }
}

#[test]
fn each_end_that_podman_knows_has_its_own_words() {
    let rows = ends(&["--inspect"]);
    let mut cases = Vec::new();
    for row in &rows {
        let Some(engine) = Engine::new() else { return };
        let name = end(&engine, &row.what);
        row.assert_said(&said(&engine, &name));
        cases.push(row.what.as_str());
    }
    assert_all(&rows, &cases);
}
