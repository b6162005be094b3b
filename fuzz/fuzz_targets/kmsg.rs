#![no_main]

// As the parser's file, which the check includes, names it.
use forensics_core::escape;

#[path = "../checks/kmsg.rs"]
mod check;

libfuzzer_sys::fuzz_target!(|data: &[u8]| check::check(data));
