package rpc

import (
	"errors"
	"strconv"

	ma "github.com/multiformats/go-multiaddr"

	"shoal/ipfsd/internal/tunnel"
)

var tunnelCommands = map[string]command{
	"p2p/listen": {minArgs: 2, maxArgs: 2, run: mounted(p2pListen), options: []option{
		opt(flag, "allow-custom-protocol"), opt(flag, "report-peer-id", "r"),
	}},
	"p2p/forward": {minArgs: 3, maxArgs: 3, run: mounted(p2pForward), options: []option{opt(flag, "allow-custom-protocol")}},
	"p2p/ls":      {run: mounted(p2pList), options: []option{opt(flag, "headers", "v")}},
	"p2p/close": {run: mounted(p2pClose), options: []option{
		opt(flag, "all", "a"), opt(text, "protocol", "p"), opt(text, "listen-address", "l"), opt(text, "target-address", "t"),
	}},
	"p2p/stream/ls":    {run: mounted(p2pStreamList), options: []option{opt(flag, "headers", "v")}},
	"p2p/stream/close": {maxArgs: 1, run: mounted(p2pStreamClose), options: []option{opt(flag, "all", "a")}},
}

// mounted refuses where the configuration has not switched tunnels on, as Kubo does.
func mounted(run func(*call) error) func(*call) error {
	return func(c *call) error {
		if !c.node.Repo.Config.Experimental.Libp2pStreamMounting {
			return errors.New("libp2p stream mounting not enabled: set Experimental.Libp2pStreamMounting in the configuration")
		}
		return run(c)
	}
}

func p2pListen(c *call) error {
	name, err := tunnel.CheckProtocol(c.args[0], c.flag("allow-custom-protocol"))
	if err != nil {
		return err
	}
	target, err := tunnel.ParseTarget(c.args[1])
	if err != nil {
		return err
	}
	return c.node.Tunnels.Listen(name, target, c.flag("report-peer-id"))
}

func p2pForward(c *call) error {
	name, err := tunnel.CheckProtocol(c.args[0], c.flag("allow-custom-protocol"))
	if err != nil {
		return err
	}
	listen, err := ma.NewMultiaddr(c.args[1])
	if err != nil {
		return err
	}
	to, err := tunnel.ParsePeer(c.args[2])
	if err != nil {
		return err
	}
	return c.node.Tunnels.Forward(name, listen, to)
}

type listenerRow struct{ Protocol, ListenAddress, TargetAddress string }

func p2pList(c *call) error {
	rows := []listenerRow{}
	for _, l := range c.node.Tunnels.Listeners() {
		rows = append(rows, listenerRow{string(l.Protocol), l.Listen.String(), l.Target.String()})
	}
	return c.emit(struct{ Listeners []listenerRow }{rows})
}

func p2pClose(c *call) error {
	all, name := c.flag("all"), c.text("protocol")
	listen, target := c.text("listen-address"), c.text("target-address")
	some := name != "" || listen != "" || target != ""
	switch {
	case !all && !some:
		return errors.New("no matching options given: all, protocol, listen-address or target-address")
	case all && some:
		return errors.New("can't combine all with other matching options")
	}
	return c.emit(c.node.Tunnels.CloseListeners(func(l *tunnel.Listener) bool {
		return (name == "" || name == string(l.Protocol)) &&
			(listen == "" || listen == l.Listen.String()) &&
			(target == "" || target == l.Target.String())
	}))
}

type tunnelStreamRow struct{ HandlerID, Protocol, OriginAddress, TargetAddress string }

func p2pStreamList(c *call) error {
	rows := []tunnelStreamRow{}
	for _, s := range c.node.Tunnels.Streams() {
		rows = append(rows, tunnelStreamRow{strconv.FormatUint(s.ID, 10), string(s.Protocol), s.Origin.String(), s.Target.String()})
	}
	return c.emit(struct{ Streams []tunnelStreamRow }{rows})
}

func p2pStreamClose(c *call) error {
	if len(c.args) == 0 && !c.flag("all") {
		return errors.New("no HandlerID specified")
	}
	for _, s := range c.node.Tunnels.Streams() {
		if c.flag("all") || strconv.FormatUint(s.ID, 10) == c.args[0] {
			s.Reset()
		}
	}
	return nil
}
