;; Exports a `_start` that cannot be called as an entry point, since it wants a parameter.
(module
  (memory (export "memory") 1)
  (func (export "_start") (param i32)))
