// Fails in the way named by the first argument ("panic" without one). Go's own runtime turns
// these into a panic report on stderr and exit code 2; only "unreachable" is a WebAssembly trap.
package main

import (
	"fmt"
	"os"
	"runtime/debug"
)

var zero int

//go:noinline
func inner(way string) int {
	switch way {
	case "panic":
		panic("asked to panic")
	case "divide":
		return 1 / zero
	case "nil":
		var p *int
		return *p
	case "stack":
		debug.SetMaxStack(1 << 20)
		return deeper(0)
	case "deadlock":
		select {}
	}
	fmt.Fprintln(os.Stderr, "trap: unknown way:", way)
	os.Exit(125)
	return 0
}

//go:noinline
func deeper(n int) int { return deeper(n+1) + zero }

//go:noinline
func outer(way string) int { return inner(way) + 1 }

func main() {
	way := "panic"
	if len(os.Args) > 1 {
		way = os.Args[1]
	}
	fmt.Println("about to trap:", way)
	fmt.Println("still alive:", outer(way))
}
