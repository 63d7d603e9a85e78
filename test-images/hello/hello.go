// The smallest useful program: one line on stdout, exit code 0.
package main

import "fmt"

func main() {
	fmt.Println("hello from Go")
}
