#![no_main]

// The check includes the parser's file, which uses `crate::escape`.
use forensics_core::escape;

#[path = "../checks/kmsg.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
