// Package tunnel carries TCP connections over libp2p streams: Kubo's `p2p listen` and `p2p forward`.
package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Prefix that a protocol's name must have unless the caller asks for a custom one.
const Prefix = "/x/"

const (
	dialTimeout = 30 * time.Second
	acceptPause = 100 * time.Millisecond
)

// Listener is one end that takes connections: from peers (a listen) or from local programs (a forward).
type Listener struct {
	Protocol protocol.ID
	Listen   ma.Multiaddr
	Target   ma.Multiaddr
	stop     func()
}

// Tunnels are the listeners and the live streams of one daemon.
type Tunnels struct {
	host host.Host
	ctx  context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex
	listens map[protocol.ID]*Listener
	forward map[string]*Listener // by listen address
	streams map[uint64]*Stream
	nextID  uint64
}

// New makes the tunnels of a host; there are none yet.
func New(h host.Host) *Tunnels {
	ctx, end := context.WithCancel(context.Background())
	return &Tunnels{
		host: h, ctx: ctx, end: end,
		listens: map[protocol.ID]*Listener{}, forward: map[string]*Listener{}, streams: map[uint64]*Stream{},
	}
}

// CheckProtocol refuses names outside /x/ unless they are allowed.
func CheckProtocol(name string, allowCustom bool) (protocol.ID, error) {
	if !allowCustom && (!strings.HasPrefix(name, Prefix) || name == Prefix) {
		return "", fmt.Errorf("protocol name must be within '%s' namespace", Prefix)
	}
	if name == "" {
		return "", errors.New("protocol name must not be empty")
	}
	return protocol.ID(name), nil
}

// ParseTarget reads the address of a local TCP service, with a port that is not 0.
func ParseTarget(text string) (ma.Multiaddr, error) {
	address, err := ma.NewMultiaddr(text)
	if err != nil {
		return nil, err
	}
	if _, _, err := manet.DialArgs(address); err != nil {
		return nil, fmt.Errorf("%s is no address of a local service: %w", text, err)
	}
	if port, err := address.ValueForProtocol(ma.P_TCP); err != nil || port == "0" {
		return nil, fmt.Errorf("%s: a target needs a TCP port that is not 0", text)
	}
	return address, nil
}

// ParsePeer reads /p2p/ID or /ip4/…/tcp/…/p2p/ID.
func ParsePeer(text string) (*peer.AddrInfo, error) {
	address, err := ma.NewMultiaddr(text)
	if err != nil {
		return nil, err
	}
	return peer.AddrInfoFromP2pAddr(address)
}

// Listen hands the streams of a protocol to the local service at target. With report, the service first reads
// the caller's peer ID and a newline.
func (t *Tunnels) Listen(name protocol.ID, target ma.Multiaddr, report bool) error {
	own, err := ma.NewComponent("p2p", t.host.ID().String())
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, taken := t.listens[name]; taken {
		return errors.New("listener already registered")
	}
	t.listens[name] = &Listener{
		Protocol: name, Listen: own.Multiaddr(), Target: target,
		stop: func() { t.host.RemoveStreamHandler(name) },
	}
	t.host.SetStreamHandler(name, func(remote network.Stream) { t.serve(remote, target, report) })
	return nil
}

func (t *Tunnels) serve(remote network.Stream, target ma.Multiaddr, report bool) {
	dialer := manet.Dialer{Dialer: net.Dialer{Timeout: dialTimeout}}
	local, err := dialer.DialContext(t.ctx, target)
	if err != nil {
		slog.Debug("tunnel target does not answer", "target", target, "error", err)
		_ = remote.Reset()
		return
	}
	asker := remote.Conn().RemotePeer()
	if report {
		if _, err := fmt.Fprintf(local, "%s\n", asker); err != nil {
			_ = remote.Reset()
			_ = local.Close()
			return
		}
	}
	origin, err := ma.NewComponent("p2p", asker.String())
	if err != nil {
		_ = remote.Reset()
		_ = local.Close()
		return
	}
	t.pipe(local, remote, origin.Multiaddr(), target)
}

// Forward takes connections on a local address and carries each to the peer's protocol. It never dials ahead:
// a peer that cannot be reached shows when a connection is made.
func (t *Tunnels) Forward(name protocol.ID, listen ma.Multiaddr, to *peer.AddrInfo) error {
	target, err := ma.NewComponent("p2p", to.ID.String())
	if err != nil {
		return err
	}
	listener, err := manet.Listen(listen)
	if err != nil {
		return err
	}
	if len(to.Addrs) > 0 {
		t.host.Peerstore().AddAddrs(to.ID, to.Addrs, peerstore.TempAddrTTL)
	}
	actual := listener.Multiaddr()
	t.mu.Lock()
	t.forward[actual.String()] = &Listener{
		Protocol: name, Listen: actual, Target: target.Multiaddr(), stop: func() { _ = listener.Close() },
	}
	t.mu.Unlock()
	t.work.Go(func() {
		acceptAll(t.ctx, listener, func(local manet.Conn) {
			t.work.Go(func() { t.carry(local, name, to, target.Multiaddr()) })
		})
	})
	return nil
}

// acceptAll hands over every connection until the listener is closed.
func acceptAll(ctx context.Context, listener manet.Listener, carry func(manet.Conn)) {
	for {
		local, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Too many open files, mostly; that passes, and the listener goes on.
			slog.Warn("tunnel cannot accept a connection", "listen", listener.Multiaddr(), "error", err)
			select {
			case <-time.After(acceptPause):
			case <-ctx.Done():
				return
			}
			continue
		}
		carry(local)
	}
}

func (t *Tunnels) carry(local manet.Conn, name protocol.ID, to *peer.AddrInfo, target ma.Multiaddr) {
	ctx, done := context.WithTimeout(t.ctx, dialTimeout)
	defer done()
	if len(to.Addrs) > 0 {
		// The peer's address may have left the peer store since the forward was made.
		t.host.Peerstore().AddAddrs(to.ID, to.Addrs, peerstore.TempAddrTTL)
	}
	remote, err := t.host.NewStream(ctx, to.ID, name)
	if err != nil {
		slog.Debug("tunnel cannot reach its peer", "peer", to.ID, "protocol", name, "error", err)
		_ = local.Close()
		return
	}
	t.pipe(local, remote, local.RemoteMultiaddr(), target)
}

// Listeners gives all listens and forwards in a fixed order.
func (t *Tunnels) Listeners() []*Listener {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*Listener, 0, len(t.listens)+len(t.forward))
	for _, l := range t.listens {
		out = append(out, l)
	}
	for _, l := range t.forward {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *Listener) int {
		return strings.Compare(string(a.Protocol)+" "+a.Listen.String(), string(b.Protocol)+" "+b.Listen.String())
	})
	return out
}

// CloseListeners ends the listeners that match and counts them; live streams go on.
func (t *Tunnels) CloseListeners(match func(*Listener) bool) int {
	var closed []*Listener
	t.mu.Lock()
	for key, l := range t.listens {
		if match(l) {
			delete(t.listens, key)
			closed = append(closed, l)
		}
	}
	for key, l := range t.forward {
		if match(l) {
			delete(t.forward, key)
			closed = append(closed, l)
		}
	}
	t.mu.Unlock()
	for _, l := range closed {
		l.stop()
	}
	return len(closed)
}

// Close ends all listeners and streams and waits for them.
func (t *Tunnels) Close() {
	t.CloseListeners(func(*Listener) bool { return true })
	t.end()
	for _, s := range t.Streams() {
		s.Reset()
	}
	t.work.Wait()
}
