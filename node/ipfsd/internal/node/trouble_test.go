package node_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	bsmsg "github.com/ipfs/boxo/bitswap/message"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/protocol"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/ipfsd/internal/node"
	"shoal/ipfsd/internal/nodetest"
	"shoal/ipfsd/internal/repo"
)

const tunnelName = protocol.ID("/x/trouble")

// fetches shows that the second node still serves and the first still fetches.
func fetches(t *testing.T, from, by *nodetest.Running) {
	t.Helper()
	secret := make([]byte, 64)
	_, _ = rand.Read(secret)
	key := stored(t, from, cid.Raw, secret)
	block, err := by.Online.Blocks.GetBlock(nodetest.Context(t), key)
	if err != nil || !bytes.Equal(block.RawData(), secret) {
		t.Fatal("an honest block does not come through:", err)
	}
}

func openStream(t *testing.T, from, to *nodetest.Running, names ...protocol.ID) network.Stream {
	t.Helper()
	stream, err := from.Host.NewStream(nodetest.Context(t), to.Host.ID(), names...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stream.Reset() })
	return stream
}

func TestGarbageOnBitswap(t *testing.T) {
	a, b := nodetest.New(t), nodetest.New(t)
	nodetest.Connect(t, a, b)
	huge := []byte{0xff, 0xff, 0xff, 0xff, 0x0f} // a message of 4 GiB, says its length
	noise := make([]byte, 1<<16)
	_, _ = rand.Read(noise)
	small := append([]byte{16}, noise[:16]...)
	for name, garbage := range map[string][]byte{"a huge length": huge, "noise": noise, "a small message of noise": small, "a torn message": {200, 1, 0}} {
		t.Run(name, func(t *testing.T) {
			stream := openStream(t, b, a, bsnet.ProtocolBitswap)
			_, _ = stream.Write(garbage) // a reset in the middle is as good an answer
			_ = stream.CloseWrite()
			if err := stream.SetReadDeadline(time.Now().Add(nodetest.Patience)); err != nil {
				t.Fatal(err)
			}
			if answer, err := io.ReadAll(stream); len(answer) > 0 || isTimeout(err) {
				t.Errorf("the stream was not ended: %d bytes, %v", len(answer), err)
			}
			nodetest.Connect(t, a, b)
			fetches(t, b, a)
			fetches(t, a, b)
		})
	}
}

func isTimeout(err error) bool {
	var late net.Error
	return errors.As(err, &late) && late.Timeout()
}

func TestGarbageOnATunnel(t *testing.T) {
	a, b := nodetest.New(t), nodetest.New(t)
	nodetest.Connect(t, a, b)
	noise := make([]byte, 1<<18)
	_, _ = rand.Read(noise)
	service, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = service.Close() }()
	target, err := manet.FromNetAddr(service.Addr())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Tunnels.Listen(tunnelName, target, true); err != nil {
		t.Fatal(err)
	}
	stream := openStream(t, b, a, tunnelName)
	go func() {
		_, _ = stream.Write(noise)
		_ = stream.CloseWrite()
	}()
	conn, err := service.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	got, err := io.ReadAll(conn)
	if want := append([]byte(b.Host.ID().String()+"\n"), noise...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("a tunnel judges nothing: %d bytes of %d came through, %v", len(got), len(want), err)
	}
	nodetest.WaitUntil(t, "the stream to end", func() bool { return len(a.Tunnels.Streams()) == 0 })
	fetches(t, b, a)
}

func TestUnaskedBlocksAreNotStored(t *testing.T) {
	a, b := nodetest.New(t), nodetest.New(t)
	nodetest.Connect(t, a, b)
	unasked, wanted := blocks.NewBlock([]byte("nobody asked for this")), blocks.NewBlock([]byte("somebody asked for this"))
	came := make(chan error, 1)
	go func() {
		_, err := a.Online.Blocks.GetBlock(nodetest.Context(t), wanted.Cid())
		came <- err
	}()
	nodetest.WaitUntil(t, "a to want the block", func() bool { return len(a.Bitswap.GetWantlist()) == 1 })
	stream := openStream(t, b, a, bsnet.ProtocolBitswap)
	for _, block := range []blocks.Block{unasked, wanted} { // in this order: when the second has come, the first has too
		message := bsmsg.New(false)
		message.AddBlock(block)
		if err := message.ToNetV1(stream); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-came; err != nil {
		t.Fatal(err)
	}
	expect(t, a, true, wanted.Cid())
	expect(t, a, false, unasked.Cid())
}

func TestForgedBlockIsNotTaken(t *testing.T) {
	a, b := nodetest.New(t), nodetest.New(t)
	nodetest.Connect(t, a, b)
	honest := blocks.NewBlock([]byte("honest"))
	forged, err := blocks.NewBlockWithCid([]byte("forged"), honest.Cid())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(nodetest.Context(t))
	defer cancel()
	came := make(chan []byte, 1)
	go func() {
		if block, err := a.Online.Blocks.GetBlock(ctx, honest.Cid()); err == nil {
			came <- block.RawData()
		}
		close(came)
	}()
	nodetest.WaitUntil(t, "a to want the block", func() bool { return len(a.Bitswap.GetWantlist()) == 1 })
	stream := openStream(t, b, a, bsnet.ProtocolBitswap)
	for _, block := range []blocks.Block{forged, honest} {
		message := bsmsg.New(false)
		message.AddBlock(block)
		if err := message.ToNetV1(stream); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-came; string(got) != "honest" {
		t.Fatalf("got %q", got)
	}
}

func TestCorruptBlockIsFetchedAgain(t *testing.T) {
	a, b := nodetest.New(t), nodetest.New(t)
	nodetest.Connect(t, a, b)
	key := stored(t, b, cid.Raw, []byte("good"))
	get := func() {
		t.Helper()
		block, err := a.Online.Blocks.GetBlock(nodetest.Context(t), key)
		if err != nil || string(block.RawData()) != "good" {
			t.Fatal(err)
		}
	}
	get()
	var file string
	nodetest.WaitUntil(t, "the block on disk", func() bool {
		found, _ := filepath.Glob(filepath.Join(a.Repo.Path, "blocks", "*", "*.data"))
		if len(found) == 1 {
			file = found[0]
		}
		return file != ""
	})
	if err := os.WriteFile(file, []byte("evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	get()
	if got, err := os.ReadFile(file); err != nil || string(got) != "good" {
		t.Errorf("it was not stored again: %q, %v", got, err)
	}
}

func TestStrangerStaysOutside(t *testing.T) {
	a, b := nodetest.New(t), nodetest.New(t)
	path := nodetest.Init(t)
	nodetest.WriteSwarmKey(t, path, nodetest.SwarmKey("b"))
	stranger := nodetest.Start(t, path)
	ctx := nodetest.Context(t)
	var both sync.WaitGroup // each takes the seconds that libp2p gives a handshake
	for _, row := range [][2]*nodetest.Running{{stranger, a}, {a, stranger}} {
		both.Go(func() {
			if err := row[0].Host.Connect(ctx, row[1].Info()); err == nil {
				t.Error("a stranger was let in")
			}
		})
	}
	both.Wait()
	if len(a.Swarm.Peers()) != 0 || len(stranger.Swarm.Peers()) != 0 {
		t.Error("they know each other")
	}
	nodetest.Connect(t, a, b)
	fetches(t, b, a)
}

func TestBareTCPIsNoPeer(t *testing.T) {
	a, b := nodetest.New(t), nodetest.New(t)
	_, address, err := manet.DialArgs(a.Host.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	noise := make([]byte, 4096)
	_, _ = rand.Read(noise)
	_, _ = conn.Write(noise)
	if err := conn.SetReadDeadline(time.Now().Add(nodetest.Patience)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
		t.Error("noise keeps a connection")
	}
	nodetest.Connect(t, a, b)
	fetches(t, a, b)
}

// startError is what Start says about a repository that cannot run, which must be free again afterwards.
func startError(t *testing.T, path string) error {
	t.Helper()
	opened, err := repo.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := opened.Close(); err != nil {
			t.Error(err)
		}
	}()
	started, err := node.Start(opened, prometheus.NewRegistry())
	if err == nil {
		_ = started.Close()
		t.Fatal("it started")
	}
	return err
}

func TestPortInUse(t *testing.T) {
	taken := nodetest.New(t).Host.Addrs()[0].String()
	path := nodetest.Init(t)
	nodetest.Set(t, path, "Addresses.Swarm", []string{"/ip4/127.0.0.1/tcp/0", taken})
	err := startError(t, path)
	for _, part := range []string{taken, "Addresses.Swarm", "in use"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in: %v", part, err)
		}
	}
	nodetest.Set(t, path, "Addresses.Swarm", []string{"/ip4/127.0.0.1/tcp/0"})
	nodetest.Start(t, path)
}

func TestBadSwarmKey(t *testing.T) {
	for name, key := range map[string]string{
		"empty": "", "one line": "/key/swarm/psk/1.0.0/\n", "no hex": "/key/swarm/psk/1.0.0/\n/base16/\n" + strings.Repeat("x", 64),
		"short": "/key/swarm/psk/1.0.0/\n/base16/\nabcd\n", "another version": "/key/swarm/psk/2.0.0/\n/base16/\n" + strings.Repeat("a", 64),
		"other encoding": "/key/swarm/psk/1.0.0/\n/base99/\n" + strings.Repeat("a", 64),
	} {
		t.Run(name, func(t *testing.T) {
			path := nodetest.Init(t)
			nodetest.WriteSwarmKey(t, path, []byte(key))
			err := startError(t, path)
			if !strings.Contains(err.Error(), "swarm.key") || !strings.Contains(err.Error(), "64 hex digits") {
				t.Error("the message must name the file and what belongs into it:", err)
			}
		})
	}
}

func TestForcedPrivateNetwork(t *testing.T) {
	path := nodetest.Init(t)
	if err := os.Remove(filepath.Join(path, "swarm.key")); err != nil {
		t.Fatal(err)
	}
	pnet.ForcePrivateNetwork = true
	defer func() { pnet.ForcePrivateNetwork = false }()
	if err := startError(t, path); !strings.Contains(err.Error(), "LIBP2P_FORCE_PNET") || !strings.Contains(err.Error(), "swarm.key") {
		t.Error(err)
	}
	nodetest.WriteSwarmKey(t, path, nodetest.SwarmKey("a"))
	nodetest.Start(t, path)
}

func TestPeersAreCounted(t *testing.T) {
	registry := prometheus.NewRegistry()
	opened, err := repo.Open(nodetest.Init(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = opened.Close() }()
	a, err := node.Start(opened, registry)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = a.Close() }()
	peers := func() string {
		families, err := registry.Gather()
		if err != nil || len(families) != 1 {
			t.Fatal(families, err)
		}
		return fmt.Sprint(families[0].GetName(), families[0].GetMetric()[0].GetLabel()[0].GetValue(), families[0].GetMetric()[0].GetGauge().GetValue())
	}
	if got := peers(); got != "ipfs_p2p_peers_total/ip4/tcp0" {
		t.Error(got)
	}
	b := nodetest.New(t)
	if err := a.Host.Connect(nodetest.Context(t), b.Info()); err != nil {
		t.Fatal(err)
	}
	if got := peers(); got != "ipfs_p2p_peers_total/ip4/tcp1" {
		t.Error(got)
	}
}
