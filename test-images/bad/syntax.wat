;; Text that starts like a module and is none.
(module
  (func (export "_start") (i32.const
