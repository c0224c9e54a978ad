// Package suites runs containerd's own test suites, as Debian's golang-github-containerd-containerd-dev has them, against
// a socket: what containerd promises of a snapshotter and of a content store, asked of a running windlass daemon.
//
// scripts/suites.sh builds it in GOPATH mode, starts a daemon with a fresh root, and runs it. SOCKET names the socket,
// SNAPSHOTTER the snapshotter.
//
// One case is skipped by the 1.6 suite itself, for every snapshotter: Rename ("still fails on some kernels with overlay").
// Later releases run it, without the renaming of lower directories for overlayfs.
//
// Each case has a namespace of its own instead of a daemon of its own, and a lease, because a daemon collects what
// nothing keeps and a bare snapshotter does not.
package suites

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/containerd/containerd"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	"github.com/containerd/containerd/content"
	contents "github.com/containerd/containerd/content/testsuite"
	"github.com/containerd/containerd/namespaces"
	"github.com/containerd/containerd/pkg/testutil"
	"github.com/containerd/containerd/snapshots"
	"github.com/containerd/containerd/snapshots/proxy"
	snapshotters "github.com/containerd/containerd/snapshots/testsuite"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// The headers that carry a call's namespace and lease.
const (
	namespaceHeader = "containerd-namespace"
	leaseHeader     = "containerd-lease"
)

func TestSnapshotter(t *testing.T) {
	testutil.RequiresRoot(t)
	name := os.Getenv("SNAPSHOTTER")
	snapshotters.SnapshotterSuite(t, name, func(ctx context.Context, _ string) (snapshots.Snapshotter, func() error, error) {
		space, client, done, err := fresh(ctx)
		if err != nil {
			return nil, nil, err
		}
		outgoing, _ := metadata.FromOutgoingContext(space)
		// The suite's own namespace is the same for all cases: the case's takes its place in every call.
		conn, err := grpc.Dial("unix://"+os.Getenv("SOCKET"), grpc.WithInsecure(), //nolint: the newer name is not in Debian's
			grpc.WithUnaryInterceptor(func(ctx context.Context, method string, request, reply interface{}, cc *grpc.ClientConn, next grpc.UnaryInvoker, options ...grpc.CallOption) error {
				return next(metadata.NewOutgoingContext(ctx, outgoing), method, request, reply, cc, options...)
			}),
			grpc.WithStreamInterceptor(func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, options ...grpc.CallOption) (grpc.ClientStream, error) {
				return next(metadata.NewOutgoingContext(ctx, outgoing), desc, cc, method, options...)
			}))
		if err != nil {
			return nil, nil, err
		}
		cleanup := func() error {
			conn.Close()
			defer client.Close()
			return done(space)
		}
		return proxy.NewSnapshotter(snapshotsapi.NewSnapshotsClient(conn), name), cleanup, nil
	})
}

func TestContent(t *testing.T) {
	contents.ContentSuite(t, "content", contentStore)
}

// What one namespace has, others may take over: containerd's default policy.
func TestContentShared(t *testing.T) {
	contents.ContentCrossNSSharedSuite(t, "content", contentStore)
}

func contentStore(ctx context.Context, _ string) (context.Context, content.Store, func() error, error) {
	client, err := containerd.New(os.Getenv("SOCKET"))
	if err != nil {
		return nil, nil, nil, err
	}
	// Every context that a case asks for has a namespace of its own.
	wrap := func(ctx context.Context) (context.Context, func(context.Context) error, error) {
		return lease(ctx, client)
	}
	return contents.SetContextWrapper(ctx, wrap), client.ContentStore(), client.Close, nil
}

// fresh returns a client, and a context that carries a new namespace and a lease in it.
func fresh(ctx context.Context) (context.Context, *containerd.Client, func(context.Context) error, error) {
	client, err := containerd.New(os.Getenv("SOCKET"))
	if err != nil {
		return nil, nil, nil, err
	}
	space, done, err := lease(ctx, client)
	if err != nil {
		client.Close()
		return nil, nil, nil, err
	}
	outgoing, _ := metadata.FromOutgoingContext(space)
	if len(outgoing.Get(namespaceHeader)) == 0 || len(outgoing.Get(leaseHeader)) == 0 {
		return nil, nil, nil, fmt.Errorf("the context of a case lacks its namespace or lease: %v", outgoing)
	}
	return space, client, done, nil
}

var cases uint64

// lease gives a context a new namespace, and a lease in it until the function it returns is called.
func lease(ctx context.Context, client *containerd.Client) (context.Context, func(context.Context) error, error) {
	name := fmt.Sprintf("case-%d-%d", os.Getpid(), atomic.AddUint64(&cases, 1))
	return client.WithLease(namespaces.WithNamespace(ctx, name))
}
