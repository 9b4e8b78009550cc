package rpc

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/libp2p/go-libp2p/core/metrics"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

var counterCommands = map[string]command{
	"bitswap/stat":     {run: bitswapStat, options: []option{opt(flag, "verbose", "v"), opt(flag, "human")}},
	"bitswap/wantlist": {run: bitswapWantlist, options: []option{opt(text, "peer", "p")}},
	"bitswap/ledger":   {minArgs: 1, maxArgs: 1, run: bitswapLedger},
	"stats/bw": {run: statsBandwidth, options: []option{
		opt(text, "peer", "p"), opt(text, "proto", "t"), opt(flag, "poll"), opt(duration, "interval", "i"),
	}},
}

func bitswapStat(c *call) error {
	stat, err := c.node.Bitswap.Stat()
	if err != nil {
		return err
	}
	peers := stat.Peers
	if peers == nil {
		peers = []string{}
	}
	return c.emit(struct {
		Wantlist                                                       []linkJSON
		Peers                                                          []string
		BlocksReceived, DataReceived, DupBlksReceived, DupDataReceived uint64
		MessagesReceived, BlocksSent, DataSent                         uint64
	}{
		asLinks(stat.Wantlist), peers,
		stat.BlocksReceived, stat.DataReceived, stat.DupBlksReceived, stat.DupDataReceived,
		stat.MessagesReceived, stat.BlocksSent, stat.DataSent,
	})
}

func bitswapWantlist(c *call) error {
	wanted := c.node.Bitswap.GetWantlist()
	if name := c.text("peer"); name != "" {
		id, err := peer.Decode(name)
		if err != nil {
			return fmt.Errorf("invalid peer id %q: %w", name, err)
		}
		wanted = c.node.Bitswap.WantlistForPeer(id)
	}
	return c.emit(struct{ Keys []linkJSON }{asLinks(wanted)})
}

func bitswapLedger(c *call) error {
	id, err := peer.Decode(c.args[0])
	if err != nil {
		return fmt.Errorf("invalid peer id %q: %w", c.args[0], err)
	}
	return c.emit(c.node.Bitswap.LedgerForPeer(id))
}

// minPoll keeps a poll from spinning.
const minPoll = 100 * time.Millisecond

func statsBandwidth(c *call) error {
	name, proto := c.text("peer"), c.text("proto")
	if name != "" && proto != "" {
		return &failure{http.StatusBadRequest, "please only specify peer OR protocol"}
	}
	counter := c.node.Bandwidth
	if counter == nil {
		return errors.New("bandwidth reporter disabled in config")
	}
	read := counter.GetBandwidthTotals
	switch {
	case name != "":
		id, err := peer.Decode(name)
		if err != nil {
			return fmt.Errorf("invalid peer id %q: %w", name, err)
		}
		read = func() metrics.Stats { return counter.GetBandwidthForPeer(id) }
	case proto != "":
		read = func() metrics.Stats { return counter.GetBandwidthForProtocol(protocol.ID(proto)) }
	}
	for {
		if err := c.emitNow(read()); err != nil || !c.flag("poll") {
			return err
		}
		select {
		case <-time.After(max(get(c, "interval", time.Second), minPoll)):
		case <-c.Done():
			return c.Err()
		}
	}
}
