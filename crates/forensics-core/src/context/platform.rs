//! The platform that runs us, if our environment identifies it.
//!
//! A platform cannot be asked how long it waits before SIGKILL. Its documentation says what it does
//! by default. docs/platforms.md has the same facts; a test compares the two.

use std::time::Duration;

/// A platform that identifies itself by a variable in the environment of its processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Platform {
    /// The value of the field `platform` in the context.
    pub id: &'static str,
    /// The name that people use.
    pub name: &'static str,
    /// The variable that identifies it.
    pub variable: &'static str,
    /// How long it waits before SIGKILL, if nothing else is configured.
    pub stop_timeout: Duration,
    /// Where that is configured; `None` if it cannot be.
    pub setting: Option<&'static str>,
    /// The page that says so.
    pub source: &'static str,
}

/// All platforms that can be identified.
pub const PLATFORMS: [Platform; 5] = [
    Platform {
        id: "ecs",
        name: "Amazon ECS",
        variable: "ECS_CONTAINER_METADATA_URI_V4",
        stop_timeout: Duration::from_secs(30),
        setting: Some("stopTimeout in the task definition"),
        source: "https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html",
    },
    Platform {
        id: "cloud_run",
        name: "Cloud Run",
        variable: "K_SERVICE",
        stop_timeout: Duration::from_secs(10),
        setting: None,
        source: "https://cloud.google.com/run/docs/container-contract",
    },
    Platform {
        id: "fly",
        name: "Fly.io",
        variable: "FLY_APP_NAME",
        stop_timeout: Duration::from_secs(5),
        setting: Some("kill_timeout in fly.toml"),
        source: "https://fly.io/docs/reference/configuration/",
    },
    Platform {
        id: "heroku",
        name: "Heroku",
        variable: "DYNO",
        stop_timeout: Duration::from_secs(30),
        setting: None,
        source: "https://devcenter.heroku.com/articles/dyno-shutdown-behavior",
    },
    Platform {
        id: "nomad",
        name: "Nomad",
        variable: "NOMAD_ALLOC_ID",
        stop_timeout: Duration::from_secs(5),
        setting: Some("kill_timeout in the task"),
        source: "https://developer.hashicorp.com/nomad/docs/job-specification/task",
    },
];

impl Platform {
    /// The platform of a process with that environment.
    pub(crate) fn of(variable: &dyn Fn(&str) -> Option<String>) -> Option<&'static Self> {
        // Knative sets K_SERVICE in pods as well. There the pod's grace period counts.
        if variable("KUBERNETES_SERVICE_HOST").is_some() {
            return None;
        }
        PLATFORMS.iter().find(|platform| variable(platform.variable).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_is_identified_by_its_variable_and_not_in_a_pod() {
        let of = |set: &[&str]| {
            let variable = |name: &str| set.contains(&name).then(|| "x".to_owned());
            Platform::of(&variable).map(|platform| platform.id)
        };
        for platform in &PLATFORMS {
            assert_eq!(of(&[platform.variable]), Some(platform.id));
            assert_eq!(of(&[platform.variable, "KUBERNETES_SERVICE_HOST"]), None);
        }
        assert_eq!(of(&["PATH", "HOSTNAME"]), None);
    }
}
