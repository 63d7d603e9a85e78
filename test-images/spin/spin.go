// Says that it runs, then uses the processor for ever: nothing but a signal ends it.
package main

import "fmt"

func main() {
	fmt.Println("spinning")
	for {
	}
}
