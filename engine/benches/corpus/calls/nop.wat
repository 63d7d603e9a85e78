;; Calls a host function that does nothing, as often as asked.
(module
  (import "bench" "nop" (func $nop (param i32) (result i32)))
  (func (export "run") (param $count i32) (result i32)
    (local $sum i32)
    (loop $again
      (local.set $sum (i32.add (local.get $sum) (call $nop (local.get $count))))
      (br_if $again (local.tee $count (i32.sub (local.get $count) (i32.const 1)))))
    (local.get $sum)))
