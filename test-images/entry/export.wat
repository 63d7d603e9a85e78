;; Two entry points: `_start` says "start", `greet` (by `/app.wat#greet`) says "greet".
(module
  (import "wasi_snapshot_preview1" "fd_write"
    (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  ;; Two iovecs at addresses 0 and 8; bytes written go to address 16.
  (data (i32.const 0) "\20\00\00\00\06\00\00\00\30\00\00\00\06\00\00\00")
  (data (i32.const 32) "start\n")
  (data (i32.const 48) "greet\n")
  (func $say (param $iovec i32)
    (if (call $fd_write (i32.const 1) (local.get $iovec) (i32.const 1) (i32.const 16))
      (then unreachable)))
  (func (export "_start") (call $say (i32.const 0)))
  (func (export "greet") (call $say (i32.const 8))))
