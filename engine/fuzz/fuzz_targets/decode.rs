//! libFuzzer's entry to the target `decode`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::run("decode", data));
