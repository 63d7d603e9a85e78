;; Exits with 42 by proc_exit, from below two calls, so that an engine has frames to leave.
(module
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)
  (func $inner (call $proc_exit (i32.const 42)) unreachable)
  (func $outer (call $inner))
  (func (export "_start") (call $outer)))
