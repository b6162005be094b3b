//! Memory: the counters of the control group, in the context and after the kernel has killed a
//! process.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use forensics_tests::{Program, root_can, static_gateway};
use forensics_tokio::core::record::{PostMortem, Reason, RunOutcome};

const LIMIT_BYTES: u64 = 48 << 20;

/// A control group that is removed at the end of its test.
struct Group(PathBuf);

/// Where groups with a memory controller can be created, and the file of their limit.
fn hierarchy() -> (&'static Path, &'static str) {
    let v1 = Path::new("/sys/fs/cgroup/memory");
    match v1.join("memory.limit_in_bytes").exists() {
        true => (v1, "memory.limit_in_bytes"),
        false => (Path::new("/sys/fs/cgroup"), "memory.max"),
    }
}

fn can_limit_memory() -> bool {
    let (root, limit) = hierarchy();
    // The first line enables the controller, if no manager has done that yet.
    let script = "echo +memory 2>/dev/null >\"$1\"/cgroup.subtree_control || true
        group=$(mktemp -d \"$1\"/forensics-probe-XXXXXX)
        test -w \"$group\"/$2 && can=0 || can=1
        rmdir \"$group\"
        exit $can";
    root_can(Command::new("bash").args(["-e", "-c", script, "bash"]).arg(root).arg(limit))
}

impl Group {
    fn new(name: &str) -> Self {
        let (root, limit) = hierarchy();
        let group = Self(root.join(format!("forensics-{name}-{}", std::process::id())));
        fs::create_dir(&group.0).unwrap();
        fs::write(group.0.join(limit), LIMIT_BYTES.to_string()).unwrap();
        // Otherwise the pages would go to swap, if there is any.
        let _ = fs::write(group.0.join("memory.swap.max"), "0");
        group
    }

    /// A program as process 1 of a new pid namespace, in this group from its start on.
    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let script = "echo $$ >\"$1\"/cgroup.procs; shift; exec unshare --pid --fork --kill-child \
                      --mount-proc \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh"]).arg(&self.0).arg(program).args(arguments);
        command
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn the_context_has_what_the_control_group_counts() {
    if !can_limit_memory() {
        return;
    }
    let group = Group::new("context");
    let dir = tempfile::tempdir().unwrap();
    let records = dir.path().join("records");
    let arguments = ["--records", records.to_str().unwrap()];
    let program = Program::start(
        group
            .command(static_gateway(), &arguments)
            .env("POD_NAME", "web 1\ncause=x")
            .env("POD_NAMESPACE", "shop"),
    );
    program.wait_for_stdout("listening on ");
    let gateway = crate::container::gateway_below(program.pid());
    assert!(Command::new("/bin/kill").arg(gateway.to_string()).status().unwrap().success());
    let ended = program.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let line = ended.line("Shutdown context: ");
    assert!(line.contains(r#" pod="shop/web 1\ncause=x" loadavg_1m="#), "{line}");

    let file = fs::read_dir(&records).unwrap().next().unwrap().unwrap().path();
    let events = fs::read_to_string(file).unwrap();
    let events: Vec<serde_json::Value> =
        events.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["pod"], "shop/web 1\ncause=x");
    assert_eq!(events[0]["oom_kill"], 0);
    let signal = events.iter().find(|event| event["event"] == "signal").unwrap();
    let memory = &signal["context"]["memory"];
    assert_eq!(memory["max"], LIMIT_BYTES);
    assert_eq!(memory["oom_kill"], 0);
    let current = memory["current"].as_u64().unwrap();
    assert!((1 << 16..=LIMIT_BYTES).contains(&current), "{memory}");
    assert!(memory["max_events"].is_u64(), "{memory}");
}

#[test]
fn an_oom_kill_is_counted_by_the_group_of_the_run_also_for_a_reader_in_another_group() {
    if !can_limit_memory() {
        return;
    }
    let group = Group::new("first");
    let dir = tempfile::tempdir().unwrap();
    let records = dir.path().join("records");
    let records = records.to_str().unwrap();
    let trouble = Path::new(env!("CARGO_BIN_EXE_trouble"));
    let start = |group: &Group, kind| {
        let program = Program::start(&mut group.command(trouble, &[kind, records]));
        program.wait_for_stdout("ready");
        program
    };
    let stop = |program: &Program| {
        let below = format!("/proc/{0}/task/{0}/children", program.pid());
        let pid = fs::read_to_string(below).unwrap();
        assert!(Command::new("/bin/kill").arg(pid.trim()).status().unwrap().success());
    };
    let program = start(&group, "eats_memory");
    stop(&program);
    let ended = program.wait();
    assert!(!ended.status.success(), "{}", ended.stderr);

    // The next container has another group, but the first one still exists.
    let other = Group::new("second");
    let program = start(&other, "durable");
    let said = program.wait_for_stderr("Previous run: ");
    assert!(said.contains("outcome=killed_in_phase"), "{said}");
    assert!(said.contains("oom_kill counter was 0 and is 1 now"), "{said}");
    // The counter does not say which process it was.
    assert!(said.contains("reason=unknown"), "{said}");
    stop(&program);
    program.wait();

    // If the group is the same, its counter continues.
    let program = start(&group, "eats_memory");
    stop(&program);
    program.wait();
    let program = start(&group, "durable");
    let said = program.wait_for_stderr("Previous run: ");
    assert!(said.contains("oom_kill counter was 1 and is 2 now"), "{said}");
    stop(&program);
    program.wait();
    let verdict = PostMortem::of_last(Path::new(records)).unwrap().unwrap();
    assert_eq!(
        (verdict.outcome, verdict.reason),
        (RunOutcome::Clean, Reason::Recorded),
        "{verdict}"
    );
}
