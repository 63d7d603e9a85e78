// Prints the arguments in order and the environment sorted by bytes.
package main

import (
	"fmt"
	"os"
	"sort"
)

func main() {
	for i, arg := range os.Args {
		fmt.Printf("arg %d: %s\n", i, arg)
	}
	env := os.Environ()
	sort.Strings(env)
	for _, pair := range env {
		fmt.Println("env", pair)
	}
}
