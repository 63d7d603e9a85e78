// attach SOCKET CONTAINER connects standard input, output and error to those of a container's first process, by CRI's Attach.
//
// crictl 1.30.0 has a command for that, which fails with "unknown transport".
package main

import (
	"context"
	"fmt"
	"net/url"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func attach(socket, container string) error {
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", socket, err)
	}
	request := &cri.AttachRequest{ContainerId: container, Stdin: true, Stdout: true, Stderr: true}
	answer, err := cri.NewRuntimeServiceClient(connection).Attach(context.Background(), request)
	if err != nil {
		return fmt.Errorf("attach to %s: %w", container, err)
	}
	address, err := url.Parse(answer.Url)
	if err != nil {
		return err
	}
	stream, err := remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", address)
	if err != nil {
		return fmt.Errorf("stream from %s: %w", address, err)
	}
	options := remotecommand.StreamOptions{Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
	return stream.StreamWithContext(context.Background(), options)
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: attach SOCKET CONTAINER")
		os.Exit(2)
	}
	if err := attach(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "attach:", err)
		os.Exit(1)
	}
}
