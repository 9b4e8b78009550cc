package transport

import (
	"context"
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	core "github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sys/unix"
)

// plain upgrades nothing: it hands out the bare connections, whose sockets the tests look at.
type plain struct {
	core.Upgrader
	accepted chan manet.Listener
	dialled  chan manet.Conn
}

func newPlain() *plain {
	return &plain{accepted: make(chan manet.Listener, 1), dialled: make(chan manet.Conn, 1)}
}

type gated struct{ manet.Listener }

func (gated) Accept() (manet.Conn, network.ConnManagementScope, error) {
	return nil, nil, errors.New("not used")
}

func (p *plain) GateMaListener(l manet.Listener) core.GatedMaListener {
	p.accepted <- l
	return gated{l}
}

func (*plain) UpgradeGatedMaListener(core.Transport, core.GatedMaListener) core.Listener { return nil }

func (p *plain) Upgrade(_ context.Context, _ core.Transport, conn manet.Conn, _ network.Direction, _ peer.ID, _ network.ConnManagementScope) (core.CapableConn, error) {
	p.dialled <- conn
	return nil, nil
}

type rawConn interface {
	SyscallConn() (syscall.RawConn, error)
}

func option(t *testing.T, conn manet.Conn, level, name int) int {
	t.Helper()
	open, ok := conn.(rawConn)
	if !ok {
		t.Fatalf("%T hides its socket", conn)
	}
	raw, err := open.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var value int
	var failed error
	if err := raw.Control(func(fd uintptr) { value, failed = unix.GetsockoptInt(int(fd), level, name) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return value
}

func lingers(t *testing.T, conn manet.Conn) *unix.Linger {
	t.Helper()
	raw, err := conn.(rawConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var linger *unix.Linger
	var failed error
	err = raw.Control(func(fd uintptr) { linger, failed = unix.GetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER) })
	if err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return linger
}

// pair gives both ends of a connection between two transports of one profile.
func pair(t *testing.T, profile Profile, listen string) (dialled, accepted manet.Conn) {
	t.Helper()
	up := newPlain()
	tcp := NewTCP(up, &network.NullResourceManager{}, profile)
	if _, err := tcp.Listen(ma.StringCast(listen)); err != nil {
		t.Fatal(err)
	}
	listener := <-up.accepted
	t.Cleanup(func() { _ = listener.Close() })
	if _, err := tcp.Dial(context.Background(), listener.Multiaddr(), "somebody"); err != nil {
		t.Fatal(err)
	}
	dialled = <-up.dialled
	t.Cleanup(func() { _ = dialled.Close() })
	accepted, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close() })
	return dialled, accepted
}

// rtoMaxDefault is what the kernel gives a socket that nobody asked for anything.
func rtoMaxDefault(t *testing.T) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	value, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, tcpRTOMaxMS)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestSocketOptionsAtBothEnds(t *testing.T) {
	for _, row := range []struct {
		profile     string
		userTimeout time.Duration
		rtoMax      time.Duration // 0: the kernel's own
	}{
		{"prompt", 15 * time.Second, time.Second},
		{"stock", 0, 0},
		{"patient", time.Hour, time.Second},
	} {
		t.Run(row.profile, func(t *testing.T) {
			profile, err := Named(row.profile)
			if err != nil {
				t.Fatal(err)
			}
			dialled, accepted := pair(t, profile, "/ip4/127.0.0.1/tcp/0")
			for end, conn := range map[string]manet.Conn{"dialled": dialled, "accepted": accepted} {
				if got := option(t, conn, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); got != int(row.userTimeout.Milliseconds()) {
					t.Errorf("%s: TCP_USER_TIMEOUT is %d ms, want %s", end, got, row.userTimeout)
				}
				if got := option(t, conn, unix.SOL_SOCKET, unix.SO_PROTOCOL); got != unix.IPPROTO_TCP {
					t.Errorf("%s: protocol %d is not plain TCP; multipath listeners do not hand options down", end, got)
				}
				if l := lingers(t, conn); l.Onoff != 1 || l.Linger != 0 {
					t.Errorf("%s: closing does not reset: %+v", end, l)
				}
				if !SupportsRTOMax() {
					t.Log("this kernel has no TCP_RTO_MAX_MS (Linux 6.15): not looked at")
					continue
				}
				want := int(row.rtoMax.Milliseconds())
				if want == 0 {
					want = rtoMaxDefault(t)
				}
				if got := option(t, conn, unix.IPPROTO_TCP, tcpRTOMaxMS); got != want {
					t.Errorf("%s: TCP_RTO_MAX_MS is %d, want %d", end, got, want)
				}
			}
		})
	}
}

func TestNamed(t *testing.T) {
	for name, want := range map[string]string{"": "prompt", "prompt": "prompt", "stock": "stock", "patient": "patient"} {
		if p, err := Named(name); err != nil || p.Name != want {
			t.Errorf("%q: %q, %v", name, p.Name, err)
		}
	}
	if _, err := Named("Prompt"); err == nil {
		t.Error("names are exact")
	}
	stock, err := Named("stock")
	if err != nil || stock != (Profile{Name: "stock"}) {
		t.Errorf("stock must change nothing: %+v, %v", stock, err)
	}
}

func TestProfilesJudgeInOrder(t *testing.T) {
	for _, p := range profiles {
		if p.UserTimeout == 0 {
			continue
		}
		if p.WriteTimeout < p.UserTimeout {
			t.Errorf("%s: yamux would judge after %s, before the kernel's %s", p.Name, p.WriteTimeout, p.UserTimeout)
		}
		if p.KeepAlive >= p.UserTimeout {
			t.Errorf("%s: nothing is in flight for the kernel to judge by: keep-alive %s, timeout %s", p.Name, p.KeepAlive, p.UserTimeout)
		}
		if p.RTOMax >= p.UserTimeout {
			t.Errorf("%s: no retry before the end: %s, %s", p.Name, p.RTOMax, p.UserTimeout)
		}
	}
}

func TestIsTCP(t *testing.T) {
	for text, want := range map[string]bool{
		"/ip4/127.0.0.1/tcp/0": true, "/ip6/::1/tcp/4001": true, "/dns4/localhost/tcp/1": true,
		"/ip4/127.0.0.1/udp/1": false, "/ip4/127.0.0.1": false, "/ip4/127.0.0.1/tcp/1/ws": false, "/unix/tmp/x": false,
	} {
		if got := IsTCP(ma.StringCast(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

// counted tells how many connections were opened and given back.
type counted struct {
	network.NullResourceManager
	open, done int
}

func (c *counted) OpenConnection(network.Direction, bool, ma.Multiaddr) (network.ConnManagementScope, error) {
	c.open++
	return &countedScope{counter: c}, nil
}

type countedScope struct {
	network.NullScope
	counter *counted
}

func (s *countedScope) Done() { s.counter.done++ }

func TestFailedDialGivesItsScopeBack(t *testing.T) {
	up := newPlain()
	listening := NewTCP(up, &network.NullResourceManager{}, Profile{})
	if _, err := listening.Listen(ma.StringCast("/ip4/127.0.0.1/tcp/0")); err != nil {
		t.Fatal(err)
	}
	listener := <-up.accepted
	address := listener.Multiaddr()
	if err := listener.Close(); err != nil { // now nobody listens there
		t.Fatal(err)
	}
	limits := &counted{}
	tcp := NewTCP(up, limits, Profile{})
	if _, err := tcp.Dial(context.Background(), address, "somebody"); err == nil {
		t.Errorf("%s answered", address)
	}
	if limits.open != 1 || limits.done != 1 {
		t.Errorf("opened %d, given back %d", limits.open, limits.done)
	}
}

func TestDialHeedsItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	tcp := NewTCP(newPlain(), &network.NullResourceManager{}, Profile{DialTimeout: time.Hour})
	if _, err := tcp.Dial(ctx, ma.StringCast("/ip4/127.0.0.1/tcp/1"), "somebody"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
