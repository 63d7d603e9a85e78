(module (func unreachable))
