//! libFuzzer's entry to the target `wasi`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| coracle_fuzz::run("wasi", data));
