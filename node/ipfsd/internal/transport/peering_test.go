package transport_test

import (
	"fmt"
	"testing"

	"github.com/ipfs/boxo/peering"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"

	"shoal/ipfsd/internal/nodetest"
	"shoal/ipfsd/internal/transport"
)

func connected(a *nodetest.Running, b peer.ID) bool {
	return a.Swarm.Connectedness(b) == network.Connected
}

// fixPort makes the next daemon on the repository come back where this one was.
func fixPort(t *testing.T, path string, n *nodetest.Running) {
	t.Helper()
	var addresses []string
	for _, address := range n.Swarm.ListenAddresses() {
		addresses = append(addresses, address.String())
	}
	nodetest.Set(t, path, "Addresses.Swarm", addresses)
}

func TestPeersOfTheConfigurationAreDialled(t *testing.T) {
	b := nodetest.New(t)
	path := nodetest.Init(t)
	nodetest.Set(t, path, "Peering.Peers", []any{map[string]any{"ID": b.Host.ID().String(), "Addrs": []string{fmt.Sprint(b.Host.Addrs()[0])}}})
	a := nodetest.Start(t, path)
	nodetest.WaitUntil(t, "a to dial its peer", func() bool { return connected(a, b.Host.ID()) })
	if !a.Host.ConnManager().IsProtected(b.Host.ID(), peering.ConnmgrTag) {
		t.Error("the connection is not protected")
	}
}

func TestRestartedPeerIsFoundAgain(t *testing.T) {
	for _, profile := range []string{"prompt", "patient"} {
		t.Run(profile, func(t *testing.T) {
			path := nodetest.Init(t)
			b := nodetest.Start(t, path)
			fixPort(t, path, b)
			pathA := nodetest.Init(t)
			nodetest.Set(t, pathA, "Shoal.Transport", profile)
			a := nodetest.Start(t, pathA)
			a.Peering.AddPeer(b.Info())
			for range 3 {
				nodetest.WaitUntil(t, "a connection", func() bool { return connected(a, b.Host.ID()) })
				b.Stop()
				nodetest.WaitUntil(t, "the end of it", func() bool { return !connected(a, b.Host.ID()) })
				b = nodetest.Start(t, path)
			}
			nodetest.WaitUntil(t, "the last connection", func() bool { return connected(a, b.Host.ID()) })
		})
	}
}

func TestRemovedPeerIsLeftAlone(t *testing.T) {
	a, removed, clock := nodetest.New(t), nodetest.New(t), nodetest.New(t)
	for _, b := range []*nodetest.Running{removed, clock} {
		a.Peering.AddPeer(b.Info())
		nodetest.WaitUntil(t, "a connection", func() bool { return connected(a, b.Host.ID()) })
	}
	a.Peering.RemovePeer(removed.Host.ID())
	if a.Host.ConnManager().IsProtected(removed.Host.ID(), peering.ConnmgrTag) {
		t.Error("it is still protected")
	}
	if err := a.Swarm.ClosePeer(removed.Host.ID()); err != nil {
		t.Fatal(err)
	}
	// The other peer, which is still kept, shows that the redialler had its turns.
	for range 3 {
		if err := a.Swarm.ClosePeer(clock.Host.ID()); err != nil {
			t.Fatal(err)
		}
		nodetest.WaitUntil(t, "the kept peer", func() bool { return connected(a, clock.Host.ID()) })
	}
	if connected(a, removed.Host.ID()) {
		t.Error("a removed peer was dialled")
	}
	if list := a.Peering.ListPeers(); len(list) != 1 || list[0].ID != clock.Host.ID() {
		t.Error("the list says", list)
	}
}

func TestPeerAddedAgainHasItsNewAddressOnly(t *testing.T) {
	a, b := nodetest.New(t), nodetest.New(t)
	a.Peering.AddPeer(peer.AddrInfo{ID: b.Host.ID()})
	a.Peering.AddPeer(b.Info())
	if list := a.Peering.ListPeers(); len(list) != 1 || fmt.Sprint(list[0].Addrs) != fmt.Sprint(b.Host.Addrs()) {
		t.Fatal(list)
	}
	nodetest.WaitUntil(t, "a connection by the new address", func() bool { return connected(a, b.Host.ID()) })
	a.Peering.RemovePeer(b.Host.ID())
	a.Peering.RemovePeer(b.Host.ID())
	if list := a.Peering.ListPeers(); len(list) != 0 {
		t.Fatal(list)
	}
}

func TestStockUsesKubosPeering(t *testing.T) {
	stock, err := transport.Named("stock")
	if err != nil {
		t.Fatal(err)
	}
	a := nodetest.New(t)
	if p, ok := transport.NewPeering(a.Host, a.Swarm, stock).(*peering.PeeringService); !ok {
		t.Fatalf("%T", p)
	}
}
