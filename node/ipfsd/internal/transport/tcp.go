package transport

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	core "github.com/libp2p/go-libp2p/core/transport"
	ma "github.com/multiformats/go-multiaddr"
	mafmt "github.com/multiformats/go-multiaddr-fmt"
	manet "github.com/multiformats/go-multiaddr/net"
	"golang.org/x/sys/unix"
)

// stockDialTimeout is libp2p's own.
const stockDialTimeout = 5 * time.Second

// tcpRTOMaxMS is TCP_RTO_MAX_MS, Linux 6.15; golang.org/x/sys does not name it yet.
const tcpRTOMaxMS = 44

// IsTCP tells whether this daemon can listen on or dial the address.
func IsTCP(address ma.Multiaddr) bool {
	return mafmt.TCP.Matches(address)
}

// TCP is libp2p over TCP with the profile's socket options at both ends of every connection. libp2p's own TCP
// transport lets nobody set options on what it accepts.
type TCP struct {
	upgrader core.Upgrader
	limits   network.ResourceManager
	profile  Profile
}

var _ core.Transport = (*TCP)(nil)

// NewTCP makes the transport.
func NewTCP(upgrader core.Upgrader, limits network.ResourceManager, profile Profile) *TCP {
	return &TCP{upgrader, limits, profile}
}

// SupportsRTOMax tells whether the kernel can cap the retransmission timer (Linux 6.15 and later).
func SupportsRTOMax() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, tcpRTOMaxMS, 1000) == nil
}

// control sets the options before bind and connect, so that they govern the handshake too.
func (t *TCP) control(_, _ string, raw syscall.RawConn) error {
	var failed error
	err := raw.Control(func(fd uintptr) {
		if t.profile.UserTimeout > 0 {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(t.profile.UserTimeout.Milliseconds()))
		}
		if t.profile.RTOMax > 0 && failed == nil {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, tcpRTOMaxMS, int(t.profile.RTOMax.Milliseconds()))
			if errors.Is(failed, unix.ENOPROTOOPT) || errors.Is(failed, unix.EINVAL) {
				failed = nil // a kernel before 6.15: the daemon said so when it started
			}
		}
	})
	return errors.Join(err, failed)
}

// Dial connects and upgrades.
func (t *TCP) Dial(ctx context.Context, address ma.Multiaddr, p peer.ID) (core.CapableConn, error) {
	scope, err := t.limits.OpenConnection(network.DirOutbound, true, address)
	if err != nil {
		return nil, err
	}
	conn, err := t.dial(ctx, address, p, scope)
	if err != nil {
		scope.Done()
		return nil, err
	}
	direction := network.DirOutbound
	if simultaneous, isClient, _ := network.GetSimultaneousConnect(ctx); simultaneous && !isClient {
		direction = network.DirInbound
	}
	return t.upgrader.Upgrade(ctx, t, conn, direction, p, scope)
}

func (t *TCP) dial(ctx context.Context, address ma.Multiaddr, p peer.ID, scope network.ConnManagementScope) (manet.Conn, error) {
	if err := scope.SetPeer(p); err != nil {
		return nil, err
	}
	kind, target, err := manet.DialArgs(address)
	if err != nil {
		return nil, err
	}
	timeout := t.profile.DialTimeout
	if timeout == 0 {
		timeout = stockDialTimeout
	}
	dialer := net.Dialer{Timeout: timeout, Control: t.control}
	dialer.SetMultipathTCP(false)
	conn, err := dialer.DialContext(ctx, kind, target)
	if err != nil {
		return nil, err
	}
	resetOnClose(conn)
	return manet.WrapNetConn(conn)
}

// resetOnClose makes close send a reset: nothing stays in TIME-WAIT, and the other side learns at once.
func resetOnClose(conn net.Conn) {
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
}

// Listen accepts connections whose sockets inherit the profile's options.
func (t *TCP) Listen(address ma.Multiaddr) (core.Listener, error) {
	kind, target, err := manet.DialArgs(address)
	if err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: t.control}
	// A multipath listener does not hand these options down to the sockets that it accepts.
	config.SetMultipathTCP(false)
	listener, err := config.Listen(context.Background(), kind, target)
	if err != nil {
		return nil, err
	}
	wrapped, err := manet.WrapNetListener(resettingListener{listener})
	if err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return t.upgrader.UpgradeGatedMaListener(t, t.upgrader.GateMaListener(wrapped)), nil
}

type resettingListener struct{ net.Listener }

func (l resettingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		resetOnClose(conn)
	}
	return conn, err
}

// CanDial tells whether the address is for this transport.
func (t *TCP) CanDial(address ma.Multiaddr) bool { return IsTCP(address) }

// Protocols are the multiaddr protocols of this transport.
func (t *TCP) Protocols() []int { return []int{ma.P_TCP} }

// Proxy is false: it dials itself.
func (t *TCP) Proxy() bool { return false }

func (t *TCP) String() string { return "TCP" }
