// Exits with the number given as the first argument, 42 without one.
package main

import (
	"fmt"
	"os"
	"strconv"
)

func main() {
	if len(os.Args) < 2 {
		os.Exit(42)
	}
	code, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "exit-code:", err)
		os.Exit(125)
	}
	os.Exit(code)
}
