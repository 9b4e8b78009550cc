package rpc

import (
	"fmt"
	"io"
	"math"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	ufsio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

var contentCommands = map[string]command{
	"add": {body: body{name: "path"}, run: add, options: []option{
		opt(flag, "quiet", "q"), opt(flag, "quieter", "Q"), opt(flag, "silent"), opt(flag, "progress", "p"),
		opt(flag, "only-hash", "n"), opt(flag, "wrap-with-directory", "w"), opt(text, "chunker", "s"),
		opt(flag, "raw-leaves"), opt(number, "cid-version"), opt(text, "hash"), opt(flag, "pin"), opt(flag, "trickle", "t"),
		opt(number, "max-file-links"), opt(flag, "recursive", "r"), opt(flag, "hidden", "H"),
		opt(text, "stdin-name"), opt(flag, "nocopy"), opt(flag, "fscache"), opt(flag, "inline"),
	}},
	"cat": {minArgs: 1, maxArgs: many, run: cat, options: []option{
		opt(number, "offset", "o"), opt(number, "length", "l"), opt(flag, "progress", "p"),
	}},
	"ls": {minArgs: 1, maxArgs: many, run: list, options: []option{
		opt(flag, "headers", "v"), opt(flag, "resolve-type"), opt(flag, "size"), opt(flag, "stream", "s"),
	}},
	"refs/local": {run: refsLocal},
}

func cat(c *call) error {
	offset, length := get(c, "offset", int64(0)), get(c, "length", int64(math.MaxInt64))
	if offset < 0 {
		return fmt.Errorf("cannot specify negative offset")
	}
	if length < 0 {
		return fmt.Errorf("cannot specify negative length")
	}
	// Every root is resolved before the header is sent, so that what is missing from the start is a plain error.
	type slice struct {
		reader ufsio.DagReader
		size   int64
	}
	var slices []slice
	var total int64
	for _, arg := range c.args {
		session := merkledag.NewSession(c, c.view.DAG)
		root, rest, err := c.nodeAt(c, session, arg)
		if err != nil {
			return err
		}
		if len(rest) > 0 {
			return fmt.Errorf("%s is a value inside a node, not a file", arg)
		}
		reader, err := ufsio.NewDagReader(c, root, session)
		if err != nil {
			return err
		}
		defer func() { _ = reader.Close() }()
		size := int64(reader.Size())
		if size < 0 {
			return fmt.Errorf("%s claims a size beyond all bounds", arg)
		}
		skip := min(offset, size)
		offset -= skip
		take := min(size-skip, length-total)
		if take <= 0 {
			continue
		}
		if skip > 0 {
			if _, err := reader.Seek(skip, io.SeekStart); err != nil {
				return err
			}
		}
		slices = append(slices, slice{reader, take})
		total += take
	}
	out := c.stream("text/plain", total)
	for _, s := range slices {
		// Not io.CopyN: with it the reader would fill a buffer whose bytes are lost when a block is missing.
		if _, err := copyBlocks(out, s.reader, s.size); err != nil {
			return err
		}
	}
	return nil
}

// copyBlocks copies size bytes and writes on what was read before an error.
func copyBlocks(to io.Writer, from io.Reader, size int64) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{io.LimitReader(from, size)}, make([]byte, 256<<10))
}

type lsLink struct {
	Name   string
	Hash   string
	Size   uint64
	Type   int32
	Target string
}

type lsObject struct {
	Hash  string
	Links []lsLink
}

func list(c *call) error {
	var objects []lsObject
	for _, arg := range c.args {
		session := merkledag.NewSession(c, c.view.DAG)
		root, rest, err := c.nodeAt(c, session, arg)
		if err != nil {
			return err
		}
		if len(rest) > 0 {
			return fmt.Errorf("%s is a value inside a node, it has no links", arg)
		}
		links := root.Links()
		if isDirectory(root) {
			folder, err := ufsio.NewDirectoryFromNode(c.view.DAG, root)
			if err != nil {
				return err
			}
			if links, err = folder.Links(c); err != nil {
				return err
			}
		}
		object := lsObject{Hash: arg, Links: []lsLink{}}
		for _, link := range links {
			entry, err := describeLink(c, session, link, get(c, "resolve-type", true) || get(c, "size", true))
			if err != nil {
				return err
			}
			object.Links = append(object.Links, entry)
		}
		objects = append(objects, object)
	}
	return c.emit(struct{ Objects []lsObject }{objects})
}

// describeLink gives a link's type and the size of the file behind it, which stands in that file's root.
func describeLink(c *call, getter ipld.NodeGetter, link *ipld.Link, resolve bool) (lsLink, error) {
	entry := lsLink{Name: link.Name, Hash: link.Cid.String(), Size: link.Size}
	if link.Cid.Type() == cid.Raw {
		entry.Type = int32(unixfs.TFile)
		return entry, nil
	}
	if !resolve || link.Cid.Type() != cid.DagProtobuf {
		return entry, nil
	}
	child, err := getter.Get(c, link.Cid)
	if err != nil {
		return entry, err
	}
	if proto, ok := child.(*merkledag.ProtoNode); ok {
		if fs, err := unixfs.FSNodeFromBytes(proto.Data()); err == nil {
			entry.Type, entry.Size = int32(fs.Type()), fs.FileSize()
			if fs.Type() == unixfs.TSymlink {
				entry.Target = string(fs.Data())
			}
		}
	}
	return entry, nil
}

func refsLocal(c *call) error {
	keys, err := c.node.Blockstore.AllKeysChan(c)
	if err != nil {
		return err
	}
	for key := range keys {
		if err := c.emit(struct{ Ref, Err string }{key.String(), ""}); err != nil {
			return err
		}
	}
	return c.Err()
}
