package tunnel

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

var errClosed = errors.New("closed under the reader")

// fakeStream ends its reader when it is closed, as libp2p's does, and tells whether it was reset.
type fakeStream struct {
	network.Stream
	closed sync.Once
	ended  chan struct{}

	mu     sync.Mutex
	resets int
	reads  error // what the reader gets at once, when set
}

func newFakeStream() *fakeStream { return &fakeStream{ended: make(chan struct{})} }

func (*fakeStream) Protocol() protocol.ID { return "/x/fake" }

func (f *fakeStream) Read([]byte) (int, error) {
	if f.reads != nil {
		return 0, f.reads
	}
	<-f.ended
	return 0, errClosed
}

func (*fakeStream) Write(p []byte) (int, error) { return len(p), nil }

func (f *fakeStream) Close() error {
	f.closed.Do(func() { close(f.ended) })
	return nil
}

func (f *fakeStream) Reset() error {
	f.mu.Lock()
	f.resets++
	f.mu.Unlock()
	return f.Close()
}

// ours gives both ends of a connection on loopback.
func ours(t *testing.T) (manet.Conn, net.Conn) {
	t.Helper()
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	far, err := net.Dial("tcp4", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	near, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	wrapped, err := manet.WrapNetConn(near)
	if err != nil {
		t.Fatal(err)
	}
	return wrapped, far
}

func TestHowAPipeEnds(t *testing.T) {
	for name, row := range map[string]struct {
		remote error // nil: the local program ends it
		reset  bool
	}{
		// A reset would destroy what was sent before and is still on its way.
		"the program closes cleanly": {nil, false},
		"the peer closes cleanly":    {io.EOF, false},
		"the peer resets":            {network.ErrReset, true},
	} {
		t.Run(name, func(t *testing.T) {
			tunnels := New(nil)
			near, far := ours(t)
			remote := newFakeStream()
			remote.reads = row.remote
			if row.remote == nil {
				if err := far.Close(); err != nil {
					t.Fatal(err)
				}
			}
			any := ma.StringCast("/ip4/127.0.0.1/tcp/1")
			tunnels.pipe(near, remote, any, any)
			if (remote.resets > 0) != row.reset {
				t.Errorf("%d resets", remote.resets)
			}
			if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
				t.Error("the local side is left open:", err)
			}
			if len(tunnels.Streams()) != 0 {
				t.Error("the stream is still listed")
			}
		})
	}
}
