// Command stargz serves the file system of Debian's stargz-snapshotter library as a snapshotter on a unix socket.
//
// Debian packages the library and ctr-remote, not the daemon. This is the least that makes one of the library: no
// credentials, no CRI, tables of contents in memory. scripts/stargz.sh builds it; tests and the bench compare with it.
//
//	stargz SOCKET ROOT [CONFIG]
package main

import (
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	api "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/contrib/snapshotservice"
	"github.com/containerd/stargz-snapshotter/fs"
	"github.com/containerd/stargz-snapshotter/metadata/memory"
	"github.com/containerd/stargz-snapshotter/service"
	"github.com/pelletier/go-toml"
	"google.golang.org/grpc"
)

func main() {
	if len(os.Args) < 3 {
		log.Fatal("usage: stargz SOCKET ROOT [CONFIG]")
	}
	if err := serve(os.Args[1], os.Args[2], os.Args[3:]); err != nil {
		log.Fatal(err)
	}
}

func serve(socket, root string, config []string) error {
	settings := new(service.Config)
	for _, path := range config {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := toml.Unmarshal(text, settings); err != nil {
			return err
		}
	}
	files := service.WithFilesystemOptions(fs.WithMetadataStore(memory.NewReader))
	snapshotter, err := service.NewStargzSnapshotterService(context.Background(), root, settings, files)
	if err != nil {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	api.RegisterSnapshotsServer(server, snapshotservice.FromSnapshotter(snapshotter))
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		<-ended
		server.Stop()
	}()
	if err := server.Serve(listener); err != nil {
		return err
	}
	return snapshotter.Close()
}
