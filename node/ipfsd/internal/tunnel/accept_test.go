package tunnel

import (
	"net"
	"syscall"
	"testing"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// troubled fails once before each connection.
type troubled struct {
	manet.Listener
	failed bool
}

func (l *troubled) Accept() (manet.Conn, error) {
	l.failed = !l.failed
	if l.failed {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return l.Listener.Accept()
}

func TestAFailedAcceptIsTriedAgain(t *testing.T) {
	listener, err := manet.Listen(ma.StringCast("/ip4/127.0.0.1/tcp/0"))
	if err != nil {
		t.Fatal(err)
	}
	carried, ended := make(chan manet.Conn), make(chan struct{})
	go func() {
		acceptAll(t.Context(), &troubled{Listener: listener}, func(local manet.Conn) { carried <- local })
		close(ended)
	}()
	for range 2 {
		conn, err := manet.Dial(listener.Multiaddr())
		if err != nil {
			t.Fatal(err)
		}
		select {
		case local := <-carried:
			_ = local.Close()
		case <-ended:
			t.Fatal("one failed accept has ended the listener")
		}
		_ = conn.Close()
	}
	_ = listener.Close()
	<-ended
}
