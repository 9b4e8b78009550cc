package rpc

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime/codec"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/codec/dagjson"
	"github.com/ipld/go-ipld-prime/codec/raw"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/multiformats/go-multicodec"
	mh "github.com/multiformats/go-multihash"
)

var dagCommands = map[string]command{
	"dag/put": {body: body{"object data", maxBlockBytes + maxMultipartOverhead}, run: dagPut, options: []option{
		opt(text, "store-codec"), opt(text, "input-codec"), opt(flag, "pin"), opt(text, "hash"), opt(flag, "allow-big-block"),
		opt(text, "format"), opt(text, "input-enc"), // ipfshttpclient still sends these two; Kubo ignores them
	}},
	"dag/get":  {minArgs: 1, maxArgs: 1, run: dagGet, options: []option{opt(text, "output-codec")}},
	"dag/stat": {minArgs: 1, maxArgs: many, run: dagStat, options: []option{opt(flag, "progress", "p")}},
}

type format struct {
	encode codec.Encoder
	decode codec.Decoder
}

var formats = map[multicodec.Code]format{
	multicodec.DagCbor: {dagcbor.Encode, dagcbor.Decode},
	multicodec.DagJson: {dagjson.Encode, dagjson.Decode},
	multicodec.DagPb:   {dagpb.Encode, dagpb.Decode},
	multicodec.Raw:     {raw.Encode, raw.Decode},
}

func formatNamed(name string) (multicodec.Code, format, error) {
	var code multicodec.Code
	if err := code.Set(name); err != nil {
		return 0, format{}, fmt.Errorf("unrecognized codec: %q", name)
	}
	known, found := formats[code]
	if !found {
		return 0, format{}, fmt.Errorf("no codec for %q; there are dag-cbor, dag-json, dag-pb and raw", name)
	}
	return code, known, nil
}

func dagPut(c *call) error {
	_, input, err := formatNamed(get(c, "input-codec", "dag-json"))
	if err != nil {
		return err
	}
	code, store, err := formatNamed(get(c, "store-codec", "dag-cbor"))
	if err != nil {
		return err
	}
	hash, known := mh.Names[strings.ToLower(get(c, "hash", "sha2-256"))]
	if !known {
		return fmt.Errorf("unrecognized hash function: %q", c.text("hash"))
	}
	data, err := c.data()
	if err != nil {
		return err
	}
	encoded, err := transcode(data, input, store)
	if err != nil {
		return err
	}
	key, err := c.store(cid.Prefix{Version: 1, Codec: uint64(code), MhType: hash, MhLength: -1}, encoded)
	if err != nil {
		return err
	}
	return c.emit(struct{ Cid linkJSON }{linkJSON{key.String()}})
}

func transcode(data []byte, from, to format) ([]byte, error) {
	value, err := decode(data, from)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := to.encode(value, &out); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func decode(data []byte, from format) (datamodel.Node, error) {
	builder := basicnode.Prototype.Any.NewBuilder()
	if err := from.decode(builder, bytes.NewReader(data)); err != nil {
		return nil, err
	}
	return builder.Build(), nil
}

// dagGet follows the path through values and links and writes what it finds.
func dagGet(c *call) error {
	_, output, err := formatNamed(get(c, "output-codec", "dag-json"))
	if err != nil {
		return err
	}
	p, err := parsePath(c.args[0])
	if err != nil {
		return err
	}
	value, err := loadValue(c, p.root)
	if err != nil {
		return err
	}
	for _, name := range p.rest {
		if value, err = child(value, name); err != nil {
			return fmt.Errorf("%s: %w", c.args[0], err)
		}
		if value.Kind() != datamodel.Kind_Link {
			continue
		}
		link, err := value.AsLink()
		if err != nil {
			return err
		}
		target, ok := link.(cidlink.Link)
		if !ok {
			return fmt.Errorf("%s: %s is no CID", c.args[0], link)
		}
		if value, err = loadValue(c, target.Cid); err != nil {
			return err
		}
	}
	var out bytes.Buffer
	if err := output.encode(value, &out); err != nil {
		return err
	}
	_, err = c.stream("application/json", int64(out.Len())).Write(out.Bytes())
	return err
}

func child(value datamodel.Node, name string) (datamodel.Node, error) {
	if value.Kind() == datamodel.Kind_List {
		index, err := strconv.ParseInt(name, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%q is no index into a list", name)
		}
		return value.LookupByIndex(index)
	}
	return value.LookupByString(name)
}

func loadValue(c *call, key cid.Cid) (datamodel.Node, error) {
	known, found := formats[multicodec.Code(key.Type())]
	if !found {
		return nil, fmt.Errorf("no codec for %s: it is %s", key, multicodec.Code(key.Type()))
	}
	block, err := c.view.Blocks.GetBlock(c, key)
	if err != nil {
		return nil, err
	}
	return decode(block.RawData(), known)
}

type dagStatRow struct {
	Cid       string
	Size      uint64
	NumBlocks int64
}

func dagStat(c *call) error {
	reply := struct {
		UniqueBlocks int
		TotalSize    uint64
		SharedSize   uint64
		Ratio        float64
		DagStats     []dagStatRow
	}{}
	unique := cid.NewSet()
	var redundant uint64
	for _, arg := range c.args {
		root, err := c.cidAt(arg)
		if err != nil {
			return err
		}
		row := dagStatRow{Cid: root.String()}
		session := merkledag.NewSession(c, c.view.DAG)
		seen := cid.NewSet()
		err = merkledag.Walk(c, merkledag.GetLinksWithDAG(session), root, func(key cid.Cid) bool {
			return seen.Visit(key)
		}, merkledag.Concurrent())
		if err != nil {
			return err
		}
		for _, key := range seen.Keys() {
			size, err := c.node.Blockstore.GetSize(c, key)
			if err != nil {
				return err
			}
			row.Size += uint64(size)
			row.NumBlocks++
			if unique.Visit(key) {
				reply.TotalSize += uint64(size)
			} else {
				reply.SharedSize += uint64(size)
			}
		}
		redundant += row.Size
		reply.DagStats = append(reply.DagStats, row)
	}
	reply.UniqueBlocks = unique.Len()
	reply.Ratio = 1
	if reply.TotalSize > 0 {
		reply.Ratio = float64(redundant) / float64(reply.TotalSize)
	}
	return c.emit(reply)
}
