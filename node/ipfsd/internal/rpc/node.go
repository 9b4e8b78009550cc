package rpc

import (
	"context"
	"encoding/base64"
	"fmt"
	"runtime"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"

	"shoal/ipfsd/internal/node"
	"shoal/ipfsd/internal/repo"
)

var nodeCommands = map[string]command{
	"version":      {options: []option{opt(flag, "number", "n"), opt(flag, "commit"), opt(flag, "repo"), opt(flag, "all")}, run: version},
	"id":           {maxArgs: 1, options: []option{opt(text, "format", "f"), opt(text, "peerid-base")}, run: id},
	"ping":         {minArgs: 1, maxArgs: 1, options: []option{opt(number, "count", "n")}, run: pingPeer},
	"shutdown":     {run: shutdown},
	"diag/healthy": {run: func(c *call) error { return c.emit("ok") }},
}

func init() {
	// Here, since the command describes the table that it stands in.
	commands["commands"] = command{options: []option{opt(flag, "flags", "f")}, run: func(c *call) error { return c.emit(Describe()) }}
}

func version(c *call) error {
	return c.emit(struct{ Version, Commit, Repo, System, Golang string }{
		node.Version, "", repo.Version, runtime.GOARCH + "/" + runtime.GOOS, runtime.Version(),
	})
}

// idReply is what is known of a peer.
type idReply struct {
	ID           string
	PublicKey    string
	Addresses    []string
	AgentVersion string
	Protocols    []string
}

func id(c *call) error {
	who := c.node.Host.ID()
	if len(c.args) == 1 {
		var err error
		if who, err = peer.Decode(c.args[0]); err != nil {
			return fmt.Errorf("invalid peer id: %w", err)
		}
	}
	if who != c.node.Host.ID() && c.node.Swarm.Connectedness(who) != network.Connected {
		if err := c.node.Host.Connect(c, peer.AddrInfo{ID: who}); err != nil {
			return err
		}
	}
	reply, err := describePeer(c.node, who)
	if err != nil {
		return err
	}
	return c.emit(reply)
}

func describePeer(n *node.Node, who peer.ID) (*idReply, error) {
	store := n.Host.Peerstore()
	reply := &idReply{ID: who.String(), Addresses: []string{}, Protocols: []string{}}
	if key := store.PubKey(who); key != nil {
		raw, err := crypto.MarshalPublicKey(key)
		if err != nil {
			return nil, err
		}
		reply.PublicKey = base64.StdEncoding.EncodeToString(raw)
	}
	info := peer.AddrInfo{ID: who, Addrs: store.Addrs(who)}
	if who == n.Host.ID() {
		info.Addrs = n.Host.Addrs()
		reply.AgentVersion = node.AgentVersion
		for _, p := range n.Host.Mux().Protocols() {
			reply.Protocols = append(reply.Protocols, string(p))
		}
	} else {
		if agent, err := store.Get(who, "AgentVersion"); err == nil {
			reply.AgentVersion, _ = agent.(string)
		}
		protocols, err := store.GetProtocols(who)
		if err != nil {
			return nil, err
		}
		for _, p := range protocols {
			reply.Protocols = append(reply.Protocols, string(p))
		}
	}
	slices.Sort(reply.Protocols)
	addresses, err := peer.AddrInfoToP2pAddrs(&info)
	if err != nil {
		return nil, err
	}
	for _, address := range addresses {
		reply.Addresses = append(reply.Addresses, address.String())
	}
	slices.Sort(reply.Addresses)
	return reply, nil
}

type pingReply struct {
	Success bool
	Time    time.Duration
	Text    string
}

func pingPeer(c *call) error {
	info, err := parsePeerArgument(c.args[0])
	if err != nil {
		return err
	}
	if info.ID == c.node.Host.ID() {
		return fmt.Errorf("can't ping self")
	}
	count := get(c, "count", int64(10))
	if count <= 0 {
		return fmt.Errorf("ping count must be greater than 0, was %d", count)
	}
	if err := c.node.Host.Connect(c, *info); err != nil {
		return fmt.Errorf("ping failed: %w", err)
	}
	if err := c.emitNow(pingReply{Success: true, Text: fmt.Sprintf("PING %s.", info.ID)}); err != nil {
		return err
	}
	ctx, done := context.WithCancel(c)
	defer done()
	results := ping.Ping(ctx, c.node.Host, info.ID)
	var total time.Duration
	for i := range count {
		if i > 0 {
			select {
			case <-time.After(time.Second):
			case <-c.Done():
				return c.Err()
			}
		}
		result, open := <-results
		if !open {
			return c.Err()
		}
		if result.Error != nil {
			return fmt.Errorf("ping failed: %w", result.Error)
		}
		total += result.RTT
		if err := c.emitNow(pingReply{Success: true, Time: result.RTT}); err != nil {
			return err
		}
	}
	average := float64(total.Microseconds()) / 1000 / float64(count)
	return c.emitNow(pingReply{Success: true, Text: fmt.Sprintf("Average latency: %.2fms", average)})
}

func shutdown(c *call) error {
	c.begin("text/plain", "X-Chunked-Output")
	if err := c.flush(); err != nil {
		return err
	}
	c.stop()
	return nil
}
