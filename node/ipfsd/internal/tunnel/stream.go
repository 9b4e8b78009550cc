package tunnel

import (
	"io"
	"slices"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// Stream is one live connection through a tunnel.
type Stream struct {
	ID       uint64
	Protocol protocol.ID
	Origin   ma.Multiaddr
	Target   ma.Multiaddr

	local  manet.Conn
	remote network.Stream
	end    sync.Once
}

// Reset ends the stream at once, at both ends.
func (s *Stream) Reset() {
	_ = s.remote.Reset()
	_ = s.local.Close()
}

// Streams gives the live connections, the oldest first.
func (t *Tunnels) Streams() []*Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]*Stream, 0, len(t.streams))
	for _, s := range t.streams {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *Stream) int { return int(a.ID) - int(b.ID) })
	return out
}

// pipe carries bytes both ways until either side ends. Like Kubo it knows no half-close: the end of one direction
// ends both, after what was already sent has been delivered.
func (t *Tunnels) pipe(local manet.Conn, remote network.Stream, origin, target ma.Multiaddr) {
	s := &Stream{Protocol: remote.Protocol(), Origin: origin, Target: target, local: local, remote: remote}
	t.mu.Lock()
	s.ID = t.nextID
	t.nextID++
	t.streams[s.ID] = s
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.streams, s.ID)
		t.mu.Unlock()
	}()
	if t.ctx.Err() != nil {
		s.Reset()
		return
	}
	var both sync.WaitGroup
	both.Go(func() { s.copy(local, remote) })
	both.Go(func() { s.copy(remote, local) })
	both.Wait()
}

// copy moves one direction. A clean end closes both sides, which delivers what was sent; an error resets them. The
// first end decides: closing makes the other direction fail, and a reset then would destroy what is on its way.
func (s *Stream) copy(to io.Writer, from io.Reader) {
	_, err := io.Copy(to, from)
	s.end.Do(func() {
		if err != nil {
			s.Reset()
			return
		}
		_ = s.remote.Close()
		_ = s.local.Close()
	})
}
