package transport

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/ipfs/boxo/peering"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// Peering keeps connections to chosen peers.
type Peering interface {
	AddPeer(peer.AddrInfo)
	RemovePeer(peer.ID)
	ListPeers() []peer.AddrInfo
	Start() error
	Stop()
}

// NewPeering gives Kubo's peering for a profile that does not redial, and a prompt one for those that do.
func NewPeering(h host.Host, s *swarm.Swarm, profile Profile) Peering {
	if profile.Redial == 0 {
		return peering.NewPeeringService(h)
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &redialler{host: h, swarm: s, profile: profile, ctx: ctx, cancel: cancel, peers: map[peer.ID]*redialled{}}
}

// redialler looks at short intervals which of its peers are missing and dials those, one dial for each at a time.
type redialler struct {
	host    host.Host
	swarm   *swarm.Swarm
	profile Profile
	ctx     context.Context
	cancel  context.CancelFunc
	workers sync.WaitGroup

	mu    sync.Mutex
	peers map[peer.ID]*redialled
}

type redialled struct {
	info   peer.AddrInfo
	cancel context.CancelFunc
}

func (r *redialler) AddPeer(info peer.AddrInfo) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, known := r.peers[info.ID]; known {
		old.cancel()
	} else {
		r.host.ConnManager().Protect(info.ID, peering.ConnmgrTag)
	}
	ctx, cancel := context.WithCancel(r.ctx)
	r.peers[info.ID] = &redialled{info, cancel}
	r.host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.PermanentAddrTTL)
	r.workers.Go(func() { r.keep(ctx, info) })
}

// keep dials the peer whenever it is missing. Of two peers that keep each other, one begins half an interval
// later, so that they rarely end up with two connections.
func (r *redialler) keep(ctx context.Context, info peer.AddrInfo) {
	if r.host.ID() > info.ID {
		select {
		case <-time.After(r.profile.Redial / 2):
		case <-ctx.Done():
			return
		}
	}
	tick := time.NewTicker(r.profile.Redial)
	defer tick.Stop()
	for {
		if r.swarm.Connectedness(info.ID) != network.Connected {
			// libp2p waits longer and longer after each failure; a heal would find it waiting.
			r.swarm.Backoff().Clear(info.ID)
			dial, done := context.WithTimeout(ctx, r.profile.DialTimeout)
			_ = r.host.Connect(dial, info) // the next tick is the answer to an error
			done()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (r *redialler) RemovePeer(id peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, known := r.peers[id]; known {
		old.cancel()
		delete(r.peers, id)
		r.host.ConnManager().Unprotect(id, peering.ConnmgrTag)
	}
}

func (r *redialler) ListPeers() []peer.AddrInfo {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]peer.AddrInfo, 0, len(r.peers))
	for _, p := range r.peers {
		out = append(out, p.info)
	}
	slices.SortFunc(out, func(a, b peer.AddrInfo) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return out
}

func (r *redialler) Start() error { return nil }

func (r *redialler) Stop() {
	r.cancel()
	r.workers.Wait()
}
