;; Traps in the way chosen by the first letter of the first argument ("u" without one), always
;; through $_start > $outer > $middle > $inner_<way>, so that the whole backtrace is known.
;;   u unreachable           d integer divide by zero     o integer overflow
;;   c invalid conversion    m memory out of bounds       t table out of bounds
;;   n null function         s signature mismatch         r endless recursion
(module
  (import "wasi_snapshot_preview1" "args_sizes_get"
    (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get"
    (func $args_get (param i32 i32) (result i32)))
  (type $nullary (func))
  (type $unary (func (param i64)))
  (memory (export "memory") 2)
  ;; The last slot stays null.
  (table 12 funcref)
  (elem (i32.const 0) $inner_unreachable $inner_divide $inner_overflow $inner_conversion
    $inner_memory $inner_table $inner_null $inner_signature $inner_recursion)
  (global $sink (mut i32) (i32.const 0))

  (func $inner_unreachable unreachable)
  (func $inner_divide
    (global.set $sink (i32.div_u (i32.const 1) (i32.load (i32.const 4096)))))
  (func $inner_overflow
    (global.set $sink (i32.div_s (i32.const 0x80000000) (i32.sub (i32.load (i32.const 4096)) (i32.const 1)))))
  (func $inner_conversion
    (global.set $sink (i32.trunc_f32_s (f32.const nan))))
  (func $inner_memory
    (global.set $sink (i32.load offset=0xfffffff0 (i32.const 0x20))))
  (func $inner_table (call_indirect (type $nullary) (i32.const 12)))
  (func $inner_null (call_indirect (type $nullary) (i32.const 11)))
  (func $inner_signature (call_indirect (type $unary) (i64.const 1) (i32.const 0)))
  (func $inner_recursion (call $inner_recursion) (global.set $sink (i32.const 1)))

  (func $middle (param $way i32)
    (call_indirect (type $nullary) (local.get $way))
    (global.set $sink (i32.const 2)))
  (func $outer (param $way i32)
    (call $middle (local.get $way))
    (global.set $sink (i32.const 3)))

  ;; Position of the letter in "udocmtnsr"; an unknown letter is taken for "u".
  (func $way (param $letter i32) (result i32)
    (local $i i32)
    (loop $next
      (if (i32.eq (i32.load8_u offset=2048 (local.get $i)) (local.get $letter))
        (then (return (local.get $i))))
      (local.set $i (i32.add (local.get $i) (i32.const 1)))
      (br_if $next (i32.lt_u (local.get $i) (i32.const 9))))
    (i32.const 0))
  (data (i32.const 2048) "udocmtnsr")

  (func $_start (export "_start")
    (local $letter i32)
    ;; Address 0: number of arguments; 4: bytes of all; 16: pointers; 8192: the strings. More
    ;; than fits there would overwrite the letters, so such a command line is not looked at.
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (if (i32.and
          (i32.and (i32.gt_u (i32.load (i32.const 0)) (i32.const 1))
                   (i32.lt_u (i32.load (i32.const 0)) (i32.const 256)))
          (i32.lt_u (i32.load (i32.const 4)) (i32.const 65536)))
      (then
        (drop (call $args_get (i32.const 16) (i32.const 8192)))
        (local.set $letter (i32.load8_u (i32.load (i32.const 20))))))
    (call $outer (call $way (local.get $letter)))))
