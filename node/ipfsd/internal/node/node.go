// Package node puts the parts of the daemon together: a repository, a libp2p host, Bitswap, DAGs, pins, tunnels
// and messages.
package node

import (
	"context"
	"errors"
	"log/slog"
	"sync"

	"github.com/ipfs/boxo/bitswap"
	"github.com/ipfs/boxo/bitswap/client"
	"github.com/ipfs/boxo/bitswap/network/bsnet"
	"github.com/ipfs/boxo/blockservice"
	"github.com/ipfs/boxo/blockstore"
	"github.com/ipfs/boxo/exchange/offline"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs/io"
	pin "github.com/ipfs/boxo/pinning/pinner"
	"github.com/ipfs/boxo/pinning/pinner/dspinner"
	ipld "github.com/ipfs/go-ipld-format"
	imetrics "github.com/ipfs/go-metrics-interface"
	mprom "github.com/ipfs/go-metrics-prometheus"
	pubsub "github.com/libp2p/go-libp2p-pubsub"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/prometheus/client_golang/prometheus"

	"shoal/ipfsd/internal/repo"
	"shoal/ipfsd/internal/transport"
	"shoal/ipfsd/internal/tunnel"
)

// Version of this daemon, and what it tells its peers.
const (
	Version      = "0.1.0"
	AgentVersion = "shoal-ipfsd/" + Version
)

// Node is a running daemon without its RPC.
type Node struct {
	Repo      *repo.Repo
	Host      host.Host
	Swarm     *swarm.Swarm
	Bandwidth *metrics.BandwidthCounter // nil when switched off
	Peering   transport.Peering
	Bitswap   *bitswap.Bitswap
	Tunnels   *tunnel.Tunnels
	PubSub    *pubsub.PubSub // nil when switched off

	Blockstore blockstore.GCBlockstore
	Online     Content // asks the swarm for what is missing
	Added      Content // the same, for what is made here: whoever waits for it gets it at once
	Offline    Content // knows only what is stored
	Pins       pin.Pinner

	stop context.CancelFunc
}

// Content is one view of the stored and perhaps fetched data.
type Content struct {
	Blocks blockservice.BlockService
	DAG    ipld.DAGService
}

func newContent(blocks blockservice.BlockService) Content {
	return Content{blocks, merkledag.NewDAGService(blocks)}
}

// setLibraries settles what the libraries keep for the whole process, however many nodes run in it.
var setLibraries = sync.OnceValue(func() error {
	io.UnixFS_v1_2025.ApplyGlobals()
	return mprom.Inject()
})

// Start opens the swarm's port and all that hangs on it, and tells the registry how many peers there are. The
// repository stays the caller's.
func Start(r *repo.Repo, registry prometheus.Registerer) (*Node, error) {
	if err := setLibraries(); err != nil { // before anything creates a metric
		return nil, err
	}
	switch r.Config.Routing.Type {
	case "", "none":
	default:
		slog.Warn("Routing.Type is obeyed as none: this daemon has no DHT", "type", r.Config.Routing.Type)
	}
	ctx, stop := context.WithCancel(imetrics.CtxScope(context.Background(), "ipfs"))
	n := &Node{Repo: r, stop: stop, Blockstore: r.Blocks()}
	if err := n.start(ctx, registry); err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

func (n *Node) start(ctx context.Context, registry prometheus.Registerer) error {
	net, err := newLibp2p(n.Repo.Config, n.Repo.SwarmKey)
	if err != nil {
		return err
	}
	n.Host, n.Swarm, n.Bandwidth = net.host, net.swarm, net.bandwidth
	if err := registry.Register(peerCount{n.Swarm}); err != nil {
		return err
	}

	profile := n.Repo.Config.Transport()
	var options []bitswap.Option
	if every := profile.Rebroadcast; every > 0 {
		options = append(options, bitswap.RebroadcastDelay(every))
	}
	if patience := profile.AnswerPatience; patience > 0 {
		waiting := client.DefaultDontHaveTimeoutConfig()
		waiting.MinTimeout = patience
		options = append(options, bitswap.WithClientOption(client.WithDontHaveTimeoutConfig(waiting)))
	}
	// No provider finder: content is asked for from connected peers, as Kubo does with Routing.Type=none.
	n.Bitswap = bitswap.New(ctx, bsnet.NewFromIpfsHost(n.Host), nil, n.Blockstore, options...)
	n.Online = newContent(blockservice.New(n.Blockstore, newFetching(n.Bitswap, profile.PassOnDelay)))
	n.Added = newContent(blockservice.New(n.Blockstore, n.Bitswap))
	n.Offline = newContent(blockservice.New(n.Blockstore, offline.Exchange(n.Blockstore)))

	if n.Pins, err = dspinner.New(ctx, n.Repo.Data, n.Online.DAG); err != nil {
		return err
	}
	n.Tunnels = tunnel.New(n.Host)
	if n.Repo.Config.Pubsub.Enabled {
		if n.PubSub, err = pubsub.NewGossipSub(ctx, n.Host, pubsub.WithFloodPublish(true)); err != nil {
			return err
		}
	}
	n.Peering = transport.NewPeering(n.Host, n.Swarm, profile)
	for _, p := range n.Repo.Config.Peers() {
		n.Peering.AddPeer(p)
	}
	return n.Peering.Start()
}

// View is the content with or without the swarm's help.
func (n *Node) View(offline bool) Content {
	if offline {
		return n.Offline
	}
	return n.Online
}

// Close ends everything that Start began.
func (n *Node) Close() error {
	var errs []error
	if n.Peering != nil {
		n.Peering.Stop()
	}
	if n.Tunnels != nil {
		n.Tunnels.Close()
	}
	if n.Pins != nil {
		errs = append(errs, n.Pins.Close())
	}
	if n.Bitswap != nil {
		errs = append(errs, n.Bitswap.Close())
	}
	n.stop()
	if n.Host != nil {
		errs = append(errs, n.Host.Close())
	}
	return errors.Join(errs...)
}
