package rpc

import (
	"fmt"
	"strings"

	pin "github.com/ipfs/boxo/pinning/pinner"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multicodec"
	mh "github.com/multiformats/go-multihash"
)

// maxBlockBytes is Kubo's bound; larger blocks do not fit into a Bitswap message.
const maxBlockBytes = 2 << 20

// maxMultipartOverhead is what a body may have beside its one part.
const maxMultipartOverhead = 64 << 10

var blockCommands = map[string]command{
	"block/get":  {minArgs: 1, maxArgs: 1, run: blockGet},
	"block/stat": {minArgs: 1, maxArgs: 1, run: blockStat},
	"block/put": {body: body{"data", maxBlockBytes + maxMultipartOverhead}, run: blockPut, options: []option{
		opt(text, "cid-codec"), opt(text, "mhtype"), opt(number, "mhlen"), opt(flag, "pin"), opt(flag, "allow-big-block"), opt(text, "format", "f"),
	}},
	"block/rm": {minArgs: 1, maxArgs: many, run: blockRemove, options: []option{opt(flag, "force", "f"), opt(flag, "quiet", "q")}},
}

func blockGet(c *call) error {
	wanted, err := c.cidAt(c.args[0])
	if err != nil {
		return err
	}
	block, err := c.view.Blocks.GetBlock(c, wanted)
	if err != nil {
		return err
	}
	_, err = c.stream("application/vnd.ipld.raw", int64(len(block.RawData()))).Write(block.RawData())
	return err
}

type blockReply struct {
	Key  string
	Size int
}

func blockStat(c *call) error {
	wanted, err := c.cidAt(c.args[0])
	if err != nil {
		return err
	}
	block, err := c.view.Blocks.GetBlock(c, wanted)
	if err != nil {
		return err
	}
	return c.emit(blockReply{wanted.String(), len(block.RawData())})
}

func blockPut(c *call) error {
	prefix := cid.Prefix{Version: 1, Codec: cid.Raw, MhType: mh.SHA2_256, MhLength: int(get(c, "mhlen", int64(-1)))}
	if name := c.text("cid-codec"); name != "" {
		var code multicodec.Code
		if err := code.Set(name); err != nil {
			return fmt.Errorf("unrecognized codec: %q", name)
		}
		prefix.Codec = uint64(code)
	}
	if name := c.text("mhtype"); name != "" {
		code, known := mh.Names[strings.ToLower(name)]
		if !known {
			return fmt.Errorf("unrecognized multihash function: %q", name)
		}
		prefix.MhType = code
	}
	data, err := c.data()
	if err != nil {
		return err
	}
	key, err := c.store(prefix, data)
	if err != nil {
		return err
	}
	return c.emit(blockReply{key.String(), len(data)})
}

// store keeps one block, pinned when the call says so, under the name that the prefix gives it.
func (c *call) store(prefix cid.Prefix, data []byte) (cid.Cid, error) {
	if len(data) > maxBlockBytes {
		return cid.Undef, fmt.Errorf("produced block is over 2MiB: big blocks can't be exchanged with other peers")
	}
	key, err := prefix.Sum(data)
	if err != nil {
		return cid.Undef, err
	}
	block, err := blocks.NewBlockWithCid(data, key)
	if err != nil {
		return cid.Undef, err
	}
	unlock := c.node.Blockstore.PinLock(c)
	defer unlock.Unlock(c)
	if err := c.node.Added.Blocks.AddBlock(c, block); err != nil {
		return cid.Undef, err
	}
	if !c.flag("pin") {
		return key, nil
	}
	if err := c.node.Pins.PinWithMode(c, key, pin.Recursive, ""); err != nil {
		return cid.Undef, err
	}
	return key, c.node.Pins.Flush(c)
}

type removedReply struct {
	Hash  string
	Error string `json:",omitempty"`
}

// blockRemove answers one line for each block, with what went wrong inside: HTTP 200 either way, as Kubo does.
func blockRemove(c *call) error {
	var keys []cid.Cid
	for _, arg := range c.args {
		key, err := c.cidAt(arg)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	unlock := c.node.Blockstore.GCLock(c)
	defer unlock.Unlock(c)
	for _, key := range keys {
		reply := removedReply{Hash: key.String()}
		if err := removeUnpinned(c, key); err != nil {
			reply.Error = err.Error()
		}
		if err := c.emit(reply); err != nil {
			return err
		}
	}
	return nil
}

func removeUnpinned(c *call, key cid.Cid) error {
	reason, pinned, err := c.node.Pins.IsPinned(c, key)
	if err != nil {
		return err
	}
	if pinned {
		return fmt.Errorf("pinned: %s", reason)
	}
	stored, err := c.node.Blockstore.Has(c, key)
	if err != nil {
		return err
	}
	if !stored {
		if c.flag("force") {
			return nil
		}
		return fmt.Errorf("ipld: could not find %s", key)
	}
	return c.node.Blockstore.DeleteBlock(c, key)
}
