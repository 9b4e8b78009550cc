package rpc

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
)

var swarmCommands = map[string]command{
	"swarm/connect":    {minArgs: 1, maxArgs: many, run: swarmConnect},
	"swarm/disconnect": {minArgs: 1, maxArgs: many, run: swarmDisconnect},
	"swarm/peers": {run: swarmPeers, options: []option{
		opt(flag, "verbose", "v"), opt(flag, "streams"), opt(flag, "latency"), opt(flag, "direction"), opt(flag, "identify"),
	}},
	"swarm/addrs":        {run: swarmAddrs},
	"swarm/addrs/local":  {run: swarmAddrsLocal, options: []option{opt(flag, "id")}},
	"swarm/addrs/listen": {run: swarmAddrsListen},
	"swarm/peering/add":  {minArgs: 1, maxArgs: many, run: peeringAdd},
	"swarm/peering/ls":   {run: peeringList},
	"swarm/peering/rm":   {minArgs: 1, maxArgs: many, run: peeringRemove},
}

// userConnectTag keeps what somebody asked for above what merely happened.
const (
	userConnectTag    = "user-connect"
	userConnectWeight = 100
)

type stringsReply struct{ Strings []string }

// parsePeers reads addresses that end in /p2p/ID and puts those of one peer together.
func parsePeers(given []string) ([]peer.AddrInfo, error) {
	var addresses []ma.Multiaddr
	for _, text := range given {
		address, err := ma.NewMultiaddr(text)
		if err != nil {
			return nil, fmt.Errorf("invalid peer address %q: %w", text, err)
		}
		addresses = append(addresses, address)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addresses...)
	if err != nil {
		return nil, fmt.Errorf("invalid peer address: %w", err)
	}
	slices.SortFunc(infos, func(a, b peer.AddrInfo) int { return strings.Compare(string(a.ID), string(b.ID)) })
	return infos, nil
}

// parsePeerArgument takes a bare peer ID or an address that ends in one.
func parsePeerArgument(given string) (*peer.AddrInfo, error) {
	if !strings.HasPrefix(given, "/") {
		id, err := peer.Decode(given)
		if err != nil {
			return nil, fmt.Errorf("invalid peer id %q: %w", given, err)
		}
		return &peer.AddrInfo{ID: id}, nil
	}
	infos, err := parsePeers([]string{given})
	if err != nil {
		return nil, err
	}
	return &infos[0], nil
}

func swarmConnect(c *call) error {
	infos, err := parsePeers(c.args)
	if err != nil {
		return err
	}
	var reply stringsReply
	for _, info := range infos {
		// Without this a second call soon after a failed one would only hear of the first one's failure.
		c.node.Swarm.Backoff().Clear(info.ID)
		if err := c.node.Host.Connect(c, info); err != nil {
			return fmt.Errorf("connect %s failure: %w", info.ID, err)
		}
		c.node.Host.ConnManager().TagPeer(info.ID, userConnectTag, userConnectWeight)
		reply.Strings = append(reply.Strings, fmt.Sprintf("connect %s success", info.ID))
	}
	return c.emit(reply)
}

func swarmDisconnect(c *call) error {
	infos, err := parsePeers(c.args)
	if err != nil {
		return err
	}
	var reply stringsReply
	for _, info := range infos {
		say := fmt.Sprintf("disconnect %s success", info.ID)
		if err := disconnect(c, info); err != nil {
			say = fmt.Sprintf("disconnect %s failure: %v", info.ID, err)
		}
		reply.Strings = append(reply.Strings, say)
	}
	return c.emit(reply)
}

func disconnect(c *call, info peer.AddrInfo) error {
	conns := c.node.Swarm.ConnsToPeer(info.ID)
	if len(conns) == 0 {
		return errors.New("not connected")
	}
	c.node.Host.ConnManager().UntagPeer(info.ID, userConnectTag)
	if len(info.Addrs) == 0 {
		return c.node.Swarm.ClosePeer(info.ID)
	}
	found := false
	var failed error
	for _, conn := range conns {
		if slices.ContainsFunc(info.Addrs, conn.RemoteMultiaddr().Equal) {
			found = true
			failed = errors.Join(failed, conn.Close())
		}
	}
	if !found {
		return errors.New("not connected to that address")
	}
	return failed
}

type streamRow struct{ Protocol string }

type peerRow struct {
	Addr      string
	Peer      string
	Latency   string `json:",omitempty"`
	Direction int    `json:",omitempty"`
	Streams   []streamRow
	Identify  *idReply `json:",omitempty"`
}

// swarmPeers gives one row for each connection; there may be two to one peer.
func swarmPeers(c *call) error {
	verbose := c.flag("verbose")
	var rows []peerRow
	for _, conn := range c.node.Swarm.Conns() {
		id := conn.RemotePeer()
		row := peerRow{Addr: conn.RemoteMultiaddr().String(), Peer: id.String()}
		if verbose || c.flag("latency") {
			row.Latency = "n/a"
			if latency := c.node.Host.Peerstore().LatencyEWMA(id); latency > 0 {
				row.Latency = latency.String()
			}
		}
		if verbose || c.flag("direction") {
			row.Direction = int(conn.Stat().Direction)
		}
		if verbose || c.flag("streams") {
			row.Streams = []streamRow{}
			for _, s := range conn.GetStreams() {
				row.Streams = append(row.Streams, streamRow{string(s.Protocol())})
			}
		}
		if verbose || c.flag("identify") {
			about, err := describePeer(c.node, id)
			if err != nil {
				return err
			}
			row.Identify = about
		}
		rows = append(rows, row)
	}
	slices.SortFunc(rows, func(a, b peerRow) int { return strings.Compare(a.Peer+a.Addr, b.Peer+b.Addr) })
	return c.emit(struct{ Peers []peerRow }{rows})
}

func texts(addresses []ma.Multiaddr) []string {
	out := make([]string, 0, len(addresses))
	for _, address := range addresses {
		out = append(out, address.String())
	}
	slices.Sort(out)
	return out
}

func swarmAddrs(c *call) error {
	store := c.node.Host.Peerstore()
	known := map[string][]string{}
	for _, id := range store.PeersWithAddrs() {
		known[id.String()] = texts(store.Addrs(id))
	}
	return c.emit(struct{ Addrs map[string][]string }{known})
}

func swarmAddrsLocal(c *call) error {
	own := texts(c.node.Host.Addrs())
	if c.flag("id") {
		for i := range own {
			own[i] += "/p2p/" + c.node.Host.ID().String()
		}
	}
	return c.emit(stringsReply{own})
}

func swarmAddrsListen(c *call) error {
	listening, err := c.node.Host.Network().InterfaceListenAddresses()
	if err != nil {
		return err
	}
	return c.emit(stringsReply{texts(listening)})
}

type peeringReply struct{ ID, Status string }

func peeringAdd(c *call) error {
	infos, err := parsePeers(c.args)
	if err != nil {
		return err
	}
	for _, info := range infos {
		c.node.Peering.AddPeer(info)
		if err := c.emit(peeringReply{info.ID.String(), "success"}); err != nil {
			return err
		}
	}
	return nil
}

func peeringList(c *call) error {
	peers := c.node.Peering.ListPeers()
	if peers == nil {
		peers = []peer.AddrInfo{}
	}
	return c.emit(struct{ Peers []peer.AddrInfo }{peers})
}

func peeringRemove(c *call) error {
	for _, arg := range c.args {
		id, err := peer.Decode(arg)
		if err != nil {
			return fmt.Errorf("invalid peer id %q: %w", arg, err)
		}
		c.node.Peering.RemovePeer(id)
		if err := c.emit(peeringReply{id.String(), "success"}); err != nil {
			return err
		}
	}
	return nil
}
