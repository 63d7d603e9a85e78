// Copies stdin to stdout until end of file, then says on stderr how many bytes that were.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	total, err := io.Copy(os.Stdout, os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "stdin-echo:", err)
		os.Exit(1)
	}
	fmt.Fprintln(os.Stderr, total, "bytes")
}
