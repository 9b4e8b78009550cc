package tunnel_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	"shoal/ipfsd/internal/nodetest"
	"shoal/ipfsd/internal/tunnel"
)

const name = protocol.ID("/x/test")

var anyPort = ma.StringCast("/ip4/127.0.0.1/tcp/0")

// service answers each connection on loopback until the test ends.
func service(t *testing.T, answer func(net.Conn)) ma.Multiaddr {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer func() { _ = conn.Close() }()
				answer(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = listener.Close()
		work.Wait()
	})
	address, err := manet.FromNetAddr(listener.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func echo(conn net.Conn) { _, _ = io.Copy(conn, conn) }

type ends struct {
	asker, server *nodetest.Running
	entry         string // where a program connects
}

// tunnelTo makes a tunnel from a new node to a service beside another.
func tunnelTo(t *testing.T, target ma.Multiaddr, report bool) ends {
	t.Helper()
	e := ends{asker: nodetest.New(t), server: nodetest.New(t)}
	nodetest.Connect(t, e.asker, e.server)
	if err := e.server.Tunnels.Listen(name, target, report); err != nil {
		t.Fatal(err)
	}
	e.entry = forward(t, e.asker, e.server.Host.ID())
	return e
}

func forward(t *testing.T, from *nodetest.Running, to peer.ID) string {
	t.Helper()
	if err := from.Tunnels.Forward(name, anyPort, &peer.AddrInfo{ID: to}); err != nil {
		t.Fatal(err)
	}
	for _, l := range from.Tunnels.Listeners() {
		if _, address, err := manet.DialArgs(l.Listen); err == nil {
			return address
		}
	}
	t.Fatal("the forward is not listed")
	return ""
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp4", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(nodetest.Patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func (e ends) waitUntilEmpty(t *testing.T) {
	t.Helper()
	for who, n := range map[string]*nodetest.Running{"asker": e.asker, "server": e.server} {
		nodetest.WaitUntil(t, "the "+who+"'s streams to end", func() bool { return len(n.Tunnels.Streams()) == 0 })
	}
}

func TestBytesGoBothWays(t *testing.T) {
	e := tunnelTo(t, service(t, echo), false)
	conn := dial(t, e.entry)
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB, more than any buffer on the way
	go func() { _, _ = conn.Write(sent) }()
	got := make([]byte, len(sent))
	if _, err := io.ReadFull(conn, got); err != nil || !bytes.Equal(got, sent) {
		t.Fatal("other bytes came back", err)
	}
	for who, n := range map[string]*nodetest.Running{"asker": e.asker, "server": e.server} {
		streams := n.Tunnels.Streams()
		if len(streams) != 1 || streams[0].Protocol != name {
			t.Fatalf("%s lists %v", who, streams)
		}
	}
	if got, want := e.server.Tunnels.Streams()[0].Origin.String(), "/p2p/"+e.asker.Host.ID().String(); got != want {
		t.Errorf("the server's stream comes from %s, want %s", got, want)
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	e.waitUntilEmpty(t)
}

func TestReportedPeerComesFirst(t *testing.T) {
	lines := make(chan string, 2)
	e := tunnelTo(t, service(t, func(conn net.Conn) {
		read := bufio.NewReader(conn)
		for range 2 {
			line, err := read.ReadString('\n')
			if err != nil {
				return
			}
			lines <- line
		}
	}), true)
	if _, err := io.WriteString(dial(t, e.entry), "hello\n"); err != nil {
		t.Fatal(err)
	}
	if first, second := <-lines, <-lines; first != e.asker.Host.ID().String()+"\n" || second != "hello\n" {
		t.Fatalf("the service read %q and %q", first, second)
	}
}

// TestAnswerBeforeCloseArrivesWhole is for services that answer and hang up, as HTTP servers may.
func TestAnswerBeforeCloseArrivesWhole(t *testing.T) {
	answer := bytes.Repeat([]byte("answer"), 50_000)
	e := tunnelTo(t, service(t, func(conn net.Conn) {
		if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
			_, _ = conn.Write(answer)
		}
	}), false)
	for i := range 200 {
		conn := dial(t, e.entry)
		if _, err := io.WriteString(conn, "ask\n"); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(conn); err != nil || len(got) != len(answer) {
			t.Fatalf("call %d: %d of %d bytes came, %v", i, len(got), len(answer), err)
		}
		_ = conn.Close()
	}
	e.waitUntilEmpty(t)
}

func TestSendingBeforeCloseArrivesWhole(t *testing.T) {
	sizes := make(chan int64, 1)
	e := tunnelTo(t, service(t, func(conn net.Conn) {
		size, _ := io.Copy(io.Discard, conn)
		sizes <- size
	}), false)
	sent := bytes.Repeat([]byte("x"), 300_000)
	for i := range 100 {
		conn := dial(t, e.entry)
		if _, err := conn.Write(sent); err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		if got := <-sizes; got != int64(len(sent)) {
			t.Fatalf("call %d: %d of %d bytes came", i, got, len(sent))
		}
	}
	e.waitUntilEmpty(t)
}

func TestAThousandStreamsAtOnce(t *testing.T) {
	const count = 1000
	e := tunnelTo(t, service(t, echo), true)
	conns := make([]net.Conn, count)
	for i := range conns {
		conns[i] = dial(t, e.entry)
	}
	who := e.asker.Host.ID().String() + "\n"
	for round := range 2 {
		for i, conn := range conns {
			if _, err := fmt.Fprintf(conn, "%d of stream %d\n", round, i); err != nil {
				t.Fatal(err)
			}
		}
		for i, conn := range conns {
			want := fmt.Sprintf("%d of stream %d\n", round, i)
			if round == 0 {
				want = who + want
			}
			got := make([]byte, len(want))
			if _, err := io.ReadFull(conn, got); err != nil || string(got) != want {
				t.Fatalf("stream %d: %q, %v", i, got, err)
			}
		}
		seen := map[uint64]bool{}
		for _, s := range e.server.Tunnels.Streams() {
			seen[s.ID] = true
		}
		if len(seen) != count || len(e.asker.Tunnels.Streams()) != count {
			t.Fatalf("%d and %d streams are listed", len(seen), len(e.asker.Tunnels.Streams()))
		}
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	e.waitUntilEmpty(t)
}

func TestClosedForwardTakesNoMoreButLeavesTheOpen(t *testing.T) {
	e := tunnelTo(t, service(t, echo), false)
	conn := dial(t, e.entry)
	exchange(t, conn, "before")
	if n := e.asker.Tunnels.CloseListeners(func(l *tunnel.Listener) bool { return l.Protocol == name }); n != 1 {
		t.Fatalf("%d listeners closed", n)
	}
	if n := e.server.Tunnels.CloseListeners(func(*tunnel.Listener) bool { return true }); n != 1 {
		t.Fatalf("%d listeners closed", n)
	}
	if late, err := net.Dial("tcp4", e.entry); err == nil {
		_ = late.Close()
		t.Error("a closed forward accepts")
	}
	exchange(t, conn, "after")
	if n := len(e.asker.Tunnels.Listeners()) + len(e.server.Tunnels.Listeners()); n != 0 {
		t.Errorf("%d listeners are left", n)
	}
}

func exchange(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestClosedListenHangsUpOnNewConnections(t *testing.T) {
	e := tunnelTo(t, service(t, echo), false)
	e.server.Tunnels.CloseListeners(func(*tunnel.Listener) bool { return true })
	expectHangUp(t, dial(t, e.entry))
	e.waitUntilEmpty(t)
	if err := e.server.Tunnels.Listen(name, service(t, echo), false); err != nil {
		t.Fatal("the name is free again:", err)
	}
	exchange(t, dial(t, e.entry), "again")
}

func expectHangUp(t *testing.T, conn net.Conn) {
	t.Helper()
	_, _ = io.WriteString(conn, "anybody there?")
	got, err := io.ReadAll(conn)
	var late net.Error
	if len(got) > 0 || (errors.As(err, &late) && late.Timeout()) {
		t.Fatalf("no end came: %q, %v", got, err)
	}
}

func TestDeadServiceHangsUp(t *testing.T) {
	closed, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target, err := manet.FromNetAddr(closed.Addr())
	if err != nil {
		t.Fatal(err)
	}
	_ = closed.Close()
	e := tunnelTo(t, target, true)
	expectHangUp(t, dial(t, e.entry))
	e.waitUntilEmpty(t)
}

func TestUnknownPeerHangsUp(t *testing.T) {
	a := nodetest.New(t)
	stranger, err := peer.Decode("12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN")
	if err != nil {
		t.Fatal(err)
	}
	expectHangUp(t, dial(t, forward(t, a, stranger)))
}

func TestForwardFindsItsPeerByTheAddressGiven(t *testing.T) {
	a, b := nodetest.New(t), nodetest.New(t)
	if err := b.Tunnels.Listen(name, service(t, echo), false); err != nil {
		t.Fatal(err)
	}
	to, err := tunnel.ParsePeer(b.Address(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Tunnels.Forward(name, anyPort, to); err != nil {
		t.Fatal(err)
	}
	if len(a.Swarm.Conns()) != 0 {
		t.Error("a forward must not dial ahead")
	}
	_, entry, err := manet.DialArgs(a.Tunnels.Listeners()[0].Listen)
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, dial(t, entry), "found")
}

func TestResetEndsBothEnds(t *testing.T) {
	e := tunnelTo(t, service(t, echo), false)
	conn := dial(t, e.entry)
	exchange(t, conn, "alive")
	for _, s := range e.server.Tunnels.Streams() {
		s.Reset()
	}
	expectHangUp(t, conn)
	e.waitUntilEmpty(t)
}

func TestStoppedNodeEndsItsTunnels(t *testing.T) {
	e := tunnelTo(t, service(t, echo), false)
	conn := dial(t, e.entry)
	exchange(t, conn, "alive")
	e.server.Stop()
	expectHangUp(t, conn)
	nodetest.WaitUntil(t, "the asker's streams to end", func() bool { return len(e.asker.Tunnels.Streams()) == 0 })
	e.asker.Stop() // waits for all of its work
	if late, err := net.Dial("tcp4", e.entry); err == nil {
		_ = late.Close()
		t.Error("the forward outlives its node")
	}
}

func TestSecondListenIsRefused(t *testing.T) {
	a := nodetest.New(t)
	target := service(t, echo)
	if err := a.Tunnels.Listen(name, target, false); err != nil {
		t.Fatal(err)
	}
	if err := a.Tunnels.Listen(name, target, false); err == nil || err.Error() != "listener already registered" {
		t.Fatal(err)
	}
}

func TestTakenForwardAddressIsNamed(t *testing.T) {
	a := nodetest.New(t)
	taken, err := manet.Listen(anyPort)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	err = a.Tunnels.Forward(name, taken.Multiaddr(), &peer.AddrInfo{ID: a.Host.ID()})
	if err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatal(err)
	}
	if n := len(a.Tunnels.Listeners()); n != 0 {
		t.Fatalf("%d listeners after a failure", n)
	}
}
