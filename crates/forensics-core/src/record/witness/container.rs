//! What a container runtime says about the end of a container: `podman inspect`, `docker inspect`,
//! or `kubectl get pod -o json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::super::few::Checked;
use super::super::{RunStarted, Utc};
use super::journal::signal_name;
use crate::escape::{MAX_NAME_CHARS, truncate};

/// How much earlier than its container a run may have started, in microseconds. A runtime may note
/// the start of a container after its process has begun.
const SLACK_US: i64 = 2_000_000;

/// How much later than the end of its container a run may have written its last event, in microseconds. A
/// clock tick lasts at most 10 ms.
const ROUNDED_US: i64 = 10_000;

/// How many values an inspection may have, because each can take several hundred bytes of memory. One of
/// a container or a pod has some hundred.
const MAX_VALUES: usize = 200_000;

/// How a container ended, as its runtime reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerEnd {
    /// `podman`, `docker` or `kubernetes`.
    pub runtime: String,
    /// The name of the container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The exit status of the container's process 1. 128 and more usually stands for a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Whether the runtime saw an OOM kill in the container, of any of its processes. podman 4
    /// reports `false` for OOM kills that it has missed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom_killed: Option<bool>,
    /// When the container began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Utc>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Utc>,
    /// The reason in Kubernetes' words, such as `OOMKilled`, `Error` or `Evicted`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long the runtime waits between its signal and SIGKILL, as configured, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout_us: Option<u64>,
}

/// Why the output of an inspection is of no use.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It is not JSON.
    #[error("it is not JSON")]
    Json(#[from] serde_json::Error),
    /// It is JSON of another kind.
    #[error(
        "it describes no container: pass the output of `podman inspect`, `docker inspect` or `kubectl get pod NAME -o json`"
    )]
    NoContainer,
    /// It has more than 200,000 values.
    #[error("it has {0} values: pass the inspection of one container or pod")]
    TooLarge(usize),
    /// No container in it is that of the run.
    #[error("none of its containers is that of the last run: {0}")]
    OtherRun(String),
    /// Several containers may be that of the run.
    #[error("several of its containers may be that of the last run ({0}): choose with --container")]
    Several(String),
}

/// Finds how the container of a run ended. `name` chooses among the containers of a pod.
///
/// A container is that of the run if it has the host name or the pod of the run, as far as both are
/// known, and if the run began, and wrote its last event, while the container ran.
///
/// # Errors
/// If the text is not the output of an inspection, or if none or several of its containers can be
/// that of the run, also if one of these still runs.
pub fn parse_inspect(
    json: &[u8],
    name: Option<&str>,
    start: &RunStarted,
    started: Utc,
    last: Utc,
) -> Result<ContainerEnd, InspectError> {
    let Checked(count) = serde_json::from_slice(json)?;
    if count > MAX_VALUES {
        return Err(InspectError::TooLarge(count));
    }
    let inspected: Value = serde_json::from_slice(json)?;
    let objects = match &inspected {
        Value::Array(all) => all.as_slice(),
        Value::Object(list) => match list.get("items").and_then(Value::as_array) {
            Some(items) => items.as_slice(),
            None => std::slice::from_ref(&inspected),
        },
        _ => &[],
    };
    let found: Vec<_> = objects.iter().flat_map(candidates).collect();
    if found.is_empty() {
        return Err(InspectError::NoContainer);
    }
    let wrong =
        |one: &Candidate| one.why_other(name, start).or_else(|| one.why_not_then(started, last));
    let fitting: Vec<_> = found.iter().filter(|one| wrong(one).is_none()).collect();
    let Some(first) = fitting.first() else {
        let why = found.iter().filter_map(|one| Some(format!("{}: {}", one.name(), wrong(one)?)));
        return Err(InspectError::OtherRun(why.collect::<Vec<_>>().join("; ")));
    };
    // A container that is named like the service is preferred to one that still runs.
    let is_named = first.end.container.as_ref() == Some(&start.service);
    let may_run = |one: &&Candidate| {
        !is_named
            && one.end.finished_at.is_none()
            && one.why_other(name, start).is_none()
            && one.began_before(started)
            && one.name() != first.name()
    };
    let all: Vec<_> =
        fitting.iter().copied().chain(found.iter().filter(may_run)).map(Candidate::name).collect();
    if all.len() > 1 {
        return Err(InspectError::Several(all.join(", ")));
    }
    Ok(first.end.clone())
}

/// A container in the output, and what tells whether it is that of the run.
struct Candidate {
    end: ContainerEnd,
    id: Option<String>,
    host: Option<String>,
    pod: Option<String>,
}

impl Candidate {
    fn name(&self) -> String {
        self.end.container.clone().or_else(|| self.id.clone()).unwrap_or_else(|| "?".to_owned())
    }

    /// Why it cannot be the container of the run, by its name, pod or host name.
    fn why_other(&self, name: Option<&str>, start: &RunStarted) -> Option<String> {
        if name.is_some_and(|name| self.end.container.as_deref() != Some(name)) {
            return Some("it has another name".to_owned());
        }
        let differs = |ours: &Option<String>, theirs: &Option<String>| matches!((ours, theirs), (Some(ours), Some(theirs)) if ours != theirs);
        // A pod without a namespace is known by its name alone.
        let short = |pod: &Option<String>| -> Option<String> {
            pod.as_ref().map(|pod| pod.rsplit('/').next().unwrap_or_default().to_owned())
        };
        let has_namespace = |pod: &Option<String>| pod.as_ref().is_some_and(|p| p.contains('/'));
        let is_other_pod = if has_namespace(&start.pod) && has_namespace(&self.pod) {
            differs(&start.pod, &self.pod)
        } else {
            differs(&short(&start.pod), &short(&self.pod))
        };
        if is_other_pod {
            return Some("it is in another pod than the run".to_owned());
        }
        // With the host's own name, the container has no host name of its own.
        if self.pod.is_none() && differs(&start.host, &self.host) {
            return Some("it has another host name than the run".to_owned());
        }
        None
    }

    /// Whether it ran when the run began, or ended before that.
    fn began_before(&self, started: Utc) -> bool {
        let began = self.end.started_at;
        began.is_some_and(|began| began.micros() - SLACK_US <= started.micros())
    }

    /// Why the run was not in this container when it began, or when it wrote its last event.
    fn why_not_then(&self, started: Utc, last: Utc) -> Option<String> {
        let (Some(began), Some(ended)) = (self.end.started_at, self.end.finished_at) else {
            return Some("it has not ended".to_owned());
        };
        // Kubernetes cuts the fraction of a second. podman takes the time of a file, which the kernel
        // rounds down to its last clock tick.
        let is_cut = ended.micros().rem_euclid(1_000_000) == 0;
        let end_us = ended.micros() + if is_cut { 1_000_000 } else { ROUNDED_US };
        let ran = format!("it ran from {began} to {ended}, and the run");
        if !self.began_before(started) || started.micros() > end_us {
            return Some(format!("{ran} began at {started}"));
        }
        (last.micros() > end_us).then(|| format!("{ran} was alive at {last}"))
    }
}

fn candidates(object: &Value) -> Vec<Candidate> {
    if object["status"].is_object() && object["metadata"].is_object() {
        return of_pod(object);
    }
    of_container(object).into_iter().collect()
}

/// A container of `podman inspect` or `docker inspect`.
fn of_container(object: &Value) -> Option<Candidate> {
    let state = object.get("State")?.as_object()?;
    let text = |value: &Value| value.as_str().map(word).filter(|text| !text.is_empty());
    let state = |name: &str| state.get(name).unwrap_or(&Value::Null);
    let is_podman = !state("ConmonPid").is_null() || !object["OCIRuntime"].is_null();
    // While a container runs, the state is that of this run, except for the end of the last one.
    let has_ended = state("Running") != &Value::Bool(true);
    let seconds = object["Config"]["StopTimeout"].as_u64();
    let end = ContainerEnd {
        runtime: if is_podman { "podman" } else { "docker" }.to_owned(),
        container: text(&object["Name"]).map(|name| name.trim_start_matches('/').to_owned()),
        exit_code: code(state("ExitCode")),
        oom_killed: state("OOMKilled").as_bool(),
        started_at: instant(state("StartedAt")),
        finished_at: instant(state("FinishedAt")).filter(|_| has_ended),
        reason: None,
        stop_timeout_us: seconds.map(|seconds| seconds.saturating_mul(1_000_000)),
    };
    let host = text(&object["Config"]["Hostname"]);
    Some(Candidate { end, id: text(&object["Id"]), host, pod: None })
}

/// The containers of a pod, as the Kubernetes API describes them (`ContainerStatus`). Each has its
/// current state and the one before the last restart.
fn of_pod(object: &Value) -> Vec<Candidate> {
    let text = |value: &Value| value.as_str().map(word).filter(|text| !text.is_empty());
    let (status, meta) = (&object["status"], &object["metadata"]);
    let pod = text(&meta["name"]).map(|name| match text(&meta["namespace"]) {
        Some(namespace) => format!("{namespace}/{name}"),
        None => name,
    });
    let grace = object["spec"]["terminationGracePeriodSeconds"].as_u64();
    let lists = ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"];
    let all = lists.iter().filter_map(|list| status[list].as_array()).flatten();
    // One that still runs may be that of the run, too.
    let states = all.flat_map(|container| {
        let [now, before] = ["state", "lastState"].map(|which| &container[which]);
        [&now["terminated"], &now["running"], &before["terminated"]].map(|it| (container, it))
    });
    let known = states.filter(|(_, state)| state.is_object());
    let candidate = |(container, terminated): (&Value, &Value)| {
        let reason = text(&terminated["reason"]);
        let oom_killed = reason.as_deref().map(|reason| reason == "OOMKilled");
        // A pod that was evicted says so itself.
        let reason = text(&status["reason"]).or(reason);
        let end = ContainerEnd {
            runtime: "kubernetes".to_owned(),
            container: text(&container["name"]),
            exit_code: code(&terminated["exitCode"]),
            oom_killed,
            started_at: instant(&terminated["startedAt"]),
            finished_at: instant(&terminated["finishedAt"]),
            reason,
            stop_timeout_us: grace.map(|seconds| seconds.saturating_mul(1_000_000)),
        };
        Candidate { end, id: None, host: None, pod: pod.clone() }
    };
    known.map(candidate).collect()
}

fn word(text: &str) -> String {
    truncate(text, MAX_NAME_CHARS)
}

fn code(value: &Value) -> Option<i32> {
    value.as_i64().and_then(|code| code.try_into().ok())
}

/// RFC 3339 with any offset. Year 1 stands for a time that is not known.
fn instant(value: &Value) -> Option<Utc> {
    let time = OffsetDateTime::parse(value.as_str()?, &Rfc3339).ok()?;
    let micros = i64::try_from(time.unix_timestamp_nanos() / 1000).ok()?;
    Utc::from_micros(micros).filter(|_| micros > 0)
}

impl ContainerEnd {
    /// The signal that the exit status stands for, by the convention of shells and container
    /// runtimes, with `SIG`.
    pub fn signal(&self) -> Option<String> {
        let number = self.exit_code?.checked_sub(128).filter(|&number| number > 0)?;
        signal_name(number).map(|name| format!("SIG{name}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::Witness;
    use super::*;

    fn podman() -> Value {
        json!([{
            "Id": "0f3c", "Name": "gw", "OCIRuntime": "runc",
            "State": { "Status": "exited", "Running": false, "OOMKilled": false, "ConmonPid": 7,
                "ExitCode": 137, "StartedAt": "2026-11-28T16:00:00.5+01:00",
                "FinishedAt": "2026-11-28T16:00:20.123456789+01:00" },
            "Config": { "Hostname": "0f3c0f3c", "StopTimeout": 10 },
        }])
    }

    fn docker() -> Value {
        json!([{
            "Id": "0f3c", "Name": "/gw",
            "State": { "Status": "exited", "Running": false, "OOMKilled": true, "Dead": false,
                "ExitCode": 137, "StartedAt": "2026-11-28T15:00:00Z",
                "FinishedAt": "2026-11-28T15:00:20.5Z" },
            "Config": { "Hostname": "0f3c0f3c" },
        }])
    }

    /// As in "Determine the Reason for Pod Failure" of the Kubernetes documentation, with the
    /// fields of its API reference.
    fn pod() -> Value {
        let running = json!({ "running": { "startedAt": "2026-11-28T15:00:22Z" } });
        let last = json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled",
            "startedAt": "2026-11-28T15:00:00Z", "finishedAt": "2026-11-28T15:00:20Z",
            "containerID": "containerd://1" } });
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "web-0", "namespace": "shop" },
            "spec": { "terminationGracePeriodSeconds": 30 },
            "status": { "phase": "Running", "containerStatuses": [
                { "name": "gateway", "restartCount": 1, "state": running, "lastState": last },
                { "name": "proxy", "state": { "running": { "startedAt": "2026-11-28T15:00:00Z" } },
                  "lastState": {} },
            ] },
        })
    }

    fn run() -> RunStarted {
        let mut start = RunStarted::new("gateway", 1);
        start.host = Some("0f3c0f3c".to_owned());
        start
    }

    fn in_pod(pod: &str) -> RunStarted {
        let mut start = run();
        (start.host, start.pod) = (Some("web-0".to_owned()), Some(pod.to_owned()));
        start
    }

    fn read(json: &Value, start: &RunStarted, at: &str) -> Result<ContainerEnd, InspectError> {
        let at = at.parse().unwrap();
        parse_inspect(json.to_string().as_bytes(), None, start, at, at)
    }

    #[test]
    fn each_runtimes_words_are_read() {
        let at = "2026-11-28T15:00:01Z";
        let list = json!({ "kind": "List", "items": [pod()] });
        let cases = [
            (podman(), run(), "podman", false, Some(10), "2026-11-28T15:00:20.123456Z"),
            (docker(), run(), "docker", true, None, "2026-11-28T15:00:20.500000Z"),
            (
                pod(),
                in_pod("shop/web-0"),
                "kubernetes",
                true,
                Some(30),
                "2026-11-28T15:00:20.000000Z",
            ),
            (list, in_pod("web-0"), "kubernetes", true, Some(30), "2026-11-28T15:00:20.000000Z"),
        ];
        for (json, start, runtime, oom, timeout, finished) in cases {
            let end = read(&json, &start, at).unwrap();
            assert_eq!(end.runtime, runtime);
            assert_eq!(end.oom_killed, Some(oom));
            assert_eq!(end.stop_timeout_us, timeout.map(|seconds: u64| seconds * 1_000_000));
            assert_eq!(end.finished_at.unwrap().to_string(), finished);
            assert_eq!(end.signal().as_deref(), Some("SIGKILL"));
            assert_eq!(Witness::from(&end).container_end(), Some(end));
        }
    }

    #[test]
    fn a_container_of_another_run_is_refused() {
        let at = "2026-11-28T15:00:01Z";
        let mut running = podman();
        running[0]["State"]["Running"] = true.into();
        let mut unnamed = pod();
        unnamed["status"]["containerStatuses"][0]["name"] = "web".into();
        let mut other = run();
        other.host = Some("another".to_owned());
        let mut two = pod();
        two["status"]["containerStatuses"][1] = two["status"]["containerStatuses"][0].clone();
        two["status"]["containerStatuses"][1]["name"] = "proxy".into();
        let cases = [
            (podman(), run(), "2026-11-28T14:59:00Z", "the run began at 2026-11-28T14:59"),
            (podman(), run(), "2026-11-28T15:01:00Z", "it ran from 2026-11-28T15:00:00.5"),
            // podman gives the fraction of a second, Kubernetes does not.
            (podman(), run(), "2026-11-28T15:00:20.5Z", "the run began at 2026-11-28T15:00:20.5"),
            (pod(), in_pod("shop/web-0"), "2026-11-28T15:00:21.1Z", "the run began at"),
            (podman(), other, at, "another host name"),
            // Which of the two is that of the run is not known: one has ended, the other one runs.
            (unnamed, in_pod("shop/web-0"), at, "may be that of the last run (web, proxy)"),
            (running, run(), at, "it has not ended"),
            (pod(), in_pod("shop/web-1"), at, "in another pod"),
            (pod(), in_pod("other/web-0"), at, "in another pod"),
            (two, in_pod("shop/web-0"), at, "gateway, proxy"),
            (json!({}), run(), at, "it describes no container"),
            (json!([1]), run(), at, "it describes no container"),
        ];
        for (json, start, at, expected) in cases {
            let error = read(&json, &start, at).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let two = {
            let mut two = pod();
            two["status"]["containerStatuses"][1] = two["status"]["containerStatuses"][0].clone();
            two["status"]["containerStatuses"][1]["name"] = "proxy".into();
            two.to_string()
        };
        let (start, at) = (in_pod("shop/web-0"), at.parse().unwrap());
        let chosen = parse_inspect(two.as_bytes(), Some("proxy"), &start, at, at).unwrap();
        assert_eq!(chosen.container.as_deref(), Some("proxy"));
        assert!(parse_inspect(b"{", None, &start, at, at).is_err());
        // The run wrote its last event when this container had ended.
        let later = "2026-11-28T15:00:22Z".parse().unwrap();
        let error = parse_inspect(two.as_bytes(), Some("proxy"), &start, at, later).unwrap_err();
        assert!(error.to_string().contains("the run was alive at 2026-11-28T15:00:22"), "{error}");
    }
}
