package rpc

import (
	"context"
	"errors"
	"fmt"

	"github.com/ipfs/boxo/ipld/merkledag"
	pin "github.com/ipfs/boxo/pinning/pinner"
	"github.com/ipfs/go-cid"
)

var pinCommands = map[string]command{
	"pin/add": {minArgs: 1, maxArgs: many, run: pinAdd, options: []option{opt(flag, "recursive", "r"), opt(text, "name", "n"), opt(flag, "progress")}},
	"pin/rm":  {minArgs: 1, maxArgs: many, run: pinRemove, options: []option{opt(flag, "recursive", "r")}},
	"pin/ls": {maxArgs: many, run: pinList, options: []option{
		opt(text, "type", "t"), opt(flag, "quiet", "q"), opt(flag, "stream", "s"), opt(flag, "names"), opt(text, "name", "n"),
	}},
}

type pinsReply struct{ Pins []string }

func pinAdd(c *call) error {
	recursive := get(c, "recursive", true)
	var reply pinsReply
	for _, arg := range c.args {
		key, err := c.cidAt(arg)
		if err != nil {
			return err
		}
		if err := pinOne(c, key, recursive); err != nil {
			return fmt.Errorf("pin: %w", err)
		}
		reply.Pins = append(reply.Pins, key.String())
	}
	if err := c.node.Pins.Flush(c); err != nil {
		return err
	}
	return c.emit(reply)
}

// pinOne fetches first and locks then: a fetch may wait for ever, and while it held the lock no garbage could be
// collected and nothing added. What a collection takes in between, Pin fetches again.
func pinOne(c *call, key cid.Cid, recursive bool) error {
	session := merkledag.NewSession(c, c.view.DAG)
	root, err := session.Get(c, key)
	if err != nil {
		return err
	}
	if recursive {
		err := merkledag.Walk(c, merkledag.GetLinksWithDAG(session), key, cid.NewSet().Visit, merkledag.Concurrent())
		if err != nil {
			return err
		}
	}
	unlock := c.node.Blockstore.PinLock(c)
	defer unlock.Unlock(c)
	return c.node.Pins.Pin(c, root, recursive, c.text("name"))
}

func pinRemove(c *call) error {
	recursive := get(c, "recursive", true)
	var reply pinsReply
	for _, arg := range c.args {
		key, err := c.cidAt(arg)
		if err != nil {
			return err
		}
		if err := c.node.Pins.Unpin(c, key, recursive); err != nil {
			return err
		}
		reply.Pins = append(reply.Pins, key.String())
	}
	if err := c.node.Pins.Flush(c); err != nil {
		return err
	}
	return c.emit(reply)
}

type pinRow struct {
	Type string
	Name string `json:",omitempty"`
}

func pinList(c *call) error {
	mode, known := pin.StringToMode(get(c, "type", "all"))
	if !known || mode == pin.Internal || mode == pin.NotPinned {
		return fmt.Errorf("invalid type '%s', must be one of {direct, indirect, recursive, all}", c.text("type"))
	}
	rows := map[string]pinRow{}
	tell := func(key cid.Cid, row pinRow) error {
		if c.flag("stream") {
			return c.emit(struct {
				Cid  string
				Type string
				Name string `json:",omitempty"`
			}{key.String(), row.Type, row.Name})
		}
		rows[key.String()] = row
		return nil
	}
	var err error
	if len(c.args) > 0 {
		err = pinListNamed(c, mode, tell)
	} else {
		err = pinListAll(c, mode, tell)
	}
	if err != nil || c.flag("stream") {
		return err
	}
	return c.emit(struct {
		Keys map[string]pinRow `json:",omitempty"`
	}{rows})
}

func pinListNamed(c *call, mode pin.Mode, tell func(cid.Cid, pinRow) error) error {
	for _, arg := range c.args {
		key, err := c.cidAt(arg)
		if err != nil {
			return err
		}
		found, err := c.node.Pins.CheckIfPinnedWithType(c, mode, true, key)
		if err != nil {
			return err
		}
		if len(found) == 0 || !found[0].Pinned() {
			return fmt.Errorf("path '%s' is not pinned", arg)
		}
		row := pinRow{Name: found[0].Name}
		row.Type, _ = pin.ModeToString(found[0].Mode)
		if found[0].Mode == pin.Indirect {
			row.Type = "indirect through " + found[0].Via.String()
		}
		if err := tell(key, row); err != nil {
			return err
		}
	}
	return nil
}

// pinListAll lists each block once, under its strongest pin.
func pinListAll(c *call, mode pin.Mode, tell func(cid.Cid, pinRow) error) error {
	ctx, done := context.WithCancel(c) // ends the streams below when we stop early
	defer done()
	roots := cid.NewSet()
	for _, group := range []struct {
		mode pin.Mode
		pins <-chan pin.StreamedPin
	}{{pin.Recursive, c.node.Pins.RecursiveKeys(ctx, true)}, {pin.Direct, c.node.Pins.DirectKeys(ctx, true)}} {
		name, _ := pin.ModeToString(group.mode)
		for p := range group.pins {
			if p.Err != nil {
				return p.Err
			}
			if !roots.Visit(p.Pin.Key) || (mode != pin.Any && mode != group.mode) {
				continue
			}
			if err := tell(p.Pin.Key, pinRow{name, p.Pin.Name}); err != nil {
				return err
			}
		}
	}
	if mode != pin.Any && mode != pin.Indirect {
		return nil
	}
	seen := cid.NewSet()
	links := merkledag.GetLinksWithDAG(c.node.Offline.DAG)
	for p := range c.node.Pins.RecursiveKeys(ctx, false) {
		if p.Err != nil {
			return p.Err
		}
		var failed error
		err := merkledag.Walk(c, links, p.Pin.Key, func(key cid.Cid) bool {
			if failed != nil || !seen.Visit(key) {
				return false
			}
			if !roots.Has(key) {
				failed = tell(key, pinRow{Type: "indirect"})
			}
			return true
		})
		if err := errors.Join(err, failed); err != nil {
			return err
		}
	}
	return nil
}
