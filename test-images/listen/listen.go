// Answers HTTP on the listening socket that it was given, whatever number that has.
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
)

// listener finds the first descriptor that listens; those before are directories.
func listener() (net.Listener, error) {
	var last error
	for fd := uintptr(3); fd < 32; fd++ {
		listener, err := net.FileListener(os.NewFile(fd, "socket"))
		if err == nil {
			return listener, nil
		}
		last = err
	}
	return nil, fmt.Errorf("no descriptor listens: %w", last)
}

func main() {
	listener, err := listener()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "hello from Go, LISTEN_FDS=%s\n", os.Getenv("LISTEN_FDS"))
	})
	fmt.Println("serving")
	fmt.Fprintln(os.Stderr, http.Serve(listener, nil))
	os.Exit(1)
}
