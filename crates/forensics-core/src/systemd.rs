//! standin
use serde::*;
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupUnit {
    pub unit: String,
    pub manager: Manager,
}
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Manager {
    System,
    User { uid: u32 },
}
pub fn unit_of_cgroup_file(_: &str) -> Option<CgroupUnit> {
    None
}
pub const DEFAULT_HEADROOM: std::time::Duration = std::time::Duration::from_secs(30);
pub struct Alignment;
impl Alignment {
    pub fn judge(
        _: crate::duration::Timespan,
        _: std::time::Duration,
        _: std::time::Duration,
    ) -> Self {
        Alignment
    }
    pub fn advice(&self, _: &CgroupUnit) -> Option<String> {
        None
    }
}
pub struct UnitProperties {
    pub timeout_stop: Option<crate::duration::Timespan>,
}
impl UnitProperties {
    pub fn parse(_: &str) -> Self {
        Self { timeout_stop: None }
    }
}
pub fn show_arguments(_: Manager, _: &str) -> Vec<String> {
    vec![]
}
