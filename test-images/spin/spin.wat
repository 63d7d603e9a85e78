;; The tightest endless loop there is: one branch, in the start function, without any import.
(module
  (memory (export "memory") 1)
  (func $_start (export "_start") (loop $for_ever (br $for_ever))))
