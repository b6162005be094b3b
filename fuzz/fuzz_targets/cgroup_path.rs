#![no_main]

#[path = "../checks/cgroup_path.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
