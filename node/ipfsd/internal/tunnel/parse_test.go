package tunnel

import (
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const somebody = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"

func TestCheckProtocol(t *testing.T) {
	for _, row := range []struct {
		name   string
		custom bool
		good   bool
	}{
		{"/x/a", false, true}, {"/x/a/b", false, true}, {"/x/", false, false}, {"/y/a", false, false}, {"x/a", false, false},
		{"", false, false}, {"/y/a", true, true}, {"a", true, true}, {"", true, false}, {"/x/", true, true},
	} {
		got, err := CheckProtocol(row.name, row.custom)
		if (err == nil) != row.good || (row.good && string(got) != row.name) {
			t.Errorf("%+v: %q, %v", row, got, err)
		}
	}
}

func TestParseTarget(t *testing.T) {
	for text, good := range map[string]bool{
		"/ip4/127.0.0.1/tcp/80": true, "/ip6/::1/tcp/80": true, "/dns4/localhost/tcp/80": true,
		"/ip4/127.0.0.1/tcp/0": false, "/ip4/127.0.0.1": false, "/ip4/127.0.0.1/udp/80": false, "/unix/tmp/x": false,
		"": false, "localhost:80": false, "/p2p/" + somebody: false, "/ip4/127.0.0.1/tcp/65536": false,
	} {
		if got, err := ParseTarget(text); (err == nil) != good {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func TestParsePeer(t *testing.T) {
	for text, good := range map[string]bool{
		"/p2p/" + somebody: true, "/ip4/127.0.0.1/tcp/1/p2p/" + somebody: true, "/ipfs/" + somebody: true,
		somebody: false, "/ip4/127.0.0.1/tcp/1": false, "/p2p/nobody": false, "": false,
	} {
		if got, err := ParsePeer(text); (err == nil) != good {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}

func FuzzCheckProtocol(f *testing.F) {
	f.Add("/x/a", false)
	f.Add("", true)
	f.Fuzz(func(t *testing.T, name string, custom bool) {
		got, err := CheckProtocol(name, custom)
		switch {
		case (err == nil) == (got == ""):
			t.Fatalf("%q: both or neither of %q and %v", name, got, err)
		case err == nil && string(got) != name:
			t.Fatalf("%q became %q", name, got)
		case err == nil && !custom && !strings.HasPrefix(name, "/x/"):
			t.Fatalf("%q escapes /x/", name)
		}
	})
}

func FuzzParseTarget(f *testing.F) {
	for _, seed := range []string{"/ip4/127.0.0.1/tcp/80", "/ip6/::1/tcp/0", "/dns4/localhost/tcp/1", "/ip6zone/lo/ip6/::1/tcp/9", "/unix/x", "/ip4/1.2.3.4/udp/5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParseTarget(text)
		if err != nil {
			if got != nil {
				t.Fatalf("%q: both %s and %v", text, got, err)
			}
			return
		}
		if _, port, err := manet.DialArgs(got); err != nil || port == "" {
			t.Fatalf("%q cannot be dialled: %v", text, err)
		}
		if port, err := got.ValueForProtocol(ma.P_TCP); err != nil || port == "0" {
			t.Fatalf("%q has the port %q, %v", text, port, err)
		}
		if again, err := ParseTarget(got.String()); err != nil || !again.Equal(got) {
			t.Fatalf("%q: %s does not read back as itself: %v", text, got, err)
		}
	})
}

func FuzzParsePeer(f *testing.F) {
	for _, seed := range []string{"/p2p/" + somebody, "/ip4/1.2.3.4/tcp/5/p2p/" + somebody, "/p2p/" + somebody + "/p2p-circuit/p2p/" + somebody, "/p2p"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := ParsePeer(text)
		if (err == nil) == (got == nil) {
			t.Fatalf("%q: both or neither of %v and %v", text, got, err)
		}
		if err != nil {
			return
		}
		if got.ID.Validate() != nil {
			t.Fatalf("%q has no peer", text)
		}
		addresses, err := peer.AddrInfoToP2pAddrs(got)
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Addrs) == 0 {
			return
		}
		if again, err := ParsePeer(addresses[0].String()); err != nil || again.String() != got.String() {
			t.Fatalf("%q: %s does not read back as itself: %v, %v", text, addresses[0], again, err)
		}
	})
}
