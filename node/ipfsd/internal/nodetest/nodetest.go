// Package nodetest starts real nodes on loopback for tests.
package nodetest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/ipfsd/internal/node"
	"shoal/ipfsd/internal/repo"
)

// Patience is how long a test waits for what should come soon; it only passes whole when the test fails.
const Patience = 30 * time.Second

// SwarmKey is a swarm.key whose secret is one hex digit, many times.
func SwarmKey(digit string) []byte {
	return []byte("/key/swarm/psk/1.0.0/\n/base16/\n" + strings.Repeat(digit, 64) + "\n")
}

// Init makes a repository for a member of the tests' swarm, on ports that the kernel chooses.
func Init(t testing.TB) string {
	t.Helper()
	path := t.TempDir()
	if _, err := repo.Init(path, []string{"test", "unixfs-v1-2025"}); err != nil {
		t.Fatal(err)
	}
	Set(t, path, "Pubsub.Enabled", true)
	Set(t, path, "Experimental.Libp2pStreamMounting", true)
	WriteSwarmKey(t, path, SwarmKey("a"))
	return path
}

// WriteSwarmKey gives the repository that swarm.key.
func WriteSwarmKey(t testing.TB, path string, key []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path, "swarm.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Set changes one key, such as Shoal.Transport, of the repository's configuration.
func Set(t testing.TB, path, key string, value any) {
	t.Helper()
	file := filepath.Join(path, "config")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	words := strings.Split(key, ".")
	at := root
	for _, word := range words[:len(words)-1] {
		inner, ok := at[word].(map[string]any)
		if !ok {
			inner = map[string]any{}
			at[word] = inner
		}
		at = inner
	}
	at[words[len(words)-1]] = value
	if text, err = json.MarshalIndent(root, "", "  "); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Running is a node that ends with its test, or before.
type Running struct {
	*node.Node
	Stop func()
}

// Start runs a node on a repository.
func Start(t testing.TB, path string) *Running {
	t.Helper()
	opened, err := repo.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	started, err := node.Start(opened, prometheus.NewRegistry())
	if err != nil {
		_ = opened.Close()
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		if err := started.Close(); err != nil {
			t.Error("close the node:", err)
		}
		if err := opened.Close(); err != nil {
			t.Error("close the repository:", err)
		}
	})
	t.Cleanup(stop)
	return &Running{started, stop}
}

// New runs a node on a repository of its own.
func New(t testing.TB) *Running {
	t.Helper()
	return Start(t, Init(t))
}

// Info is where the node can be reached.
func (r *Running) Info() peer.AddrInfo {
	return peer.AddrInfo{ID: r.Host.ID(), Addrs: r.Host.Addrs()}
}

// Address is the same as a text that ends in /p2p/ID.
func (r *Running) Address(t testing.TB) string {
	t.Helper()
	info := r.Info()
	addresses, err := peer.AddrInfoToP2pAddrs(&info)
	if err != nil || len(addresses) == 0 {
		t.Fatal("the node has no address:", err)
	}
	return addresses[0].String()
}

// Connect dials.
func Connect(t testing.TB, from, to *Running) {
	t.Helper()
	if err := from.Host.Connect(Context(t), to.Info()); err != nil {
		t.Fatal(err)
	}
}

// Context ends with the test or with its patience.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, done := context.WithTimeout(context.Background(), Patience)
	t.Cleanup(done)
	return ctx
}

// WaitUntil looks again and again whether what is expected has come.
func WaitUntil(t testing.TB, what string, come func() bool) {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !come() {
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("waited %s in vain for: %s", Patience, what)
		}
	}
}
