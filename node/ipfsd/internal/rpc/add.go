package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/ipfs/boxo/chunker"
	"github.com/ipfs/boxo/files"
	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	"github.com/ipfs/boxo/ipld/unixfs/importer/balanced"
	"github.com/ipfs/boxo/ipld/unixfs/importer/helpers"
	"github.com/ipfs/boxo/ipld/unixfs/importer/trickle"
	ufsio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
)

const (
	progressStep   = 256 << 10
	maxPathDepth   = 128
	maxLinksInNode = 1 << 16
)

// adder builds DAGs from the files of one call.
type adder struct {
	call      *call
	dag       ipld.DAGService
	chunker   string
	rawLeaves bool
	maxLinks  int
	trickle   bool
	builder   cid.Builder
	progress  bool
	silent    bool
}

type addReply struct {
	Name  string
	Hash  string `json:",omitempty"`
	Bytes int64  `json:",omitempty"`
	Size  string `json:",omitempty"`
}

func add(c *call) error {
	a, err := newAdder(c)
	if err != nil {
		return err
	}
	parts, err := c.parts()
	if err != nil {
		return err
	}
	root, err := files.NewFileFromPartReader(parts, "multipart/form-data")
	if err != nil {
		return err
	}
	// From the first block to the pin no collection of garbage may come between.
	unlock := c.node.Blockstore.PinLock(c)
	defer unlock.Unlock(c)
	pin := get(c, "pin", true) && !c.flag("only-hash")
	var wrapped []entry
	entries := root.Entries()
	for entries.Next() {
		name := entries.Name()
		built, err := a.node(name, entries.Node(), 0)
		if err != nil {
			return err
		}
		if name == "" {
			name = built.Cid().String()
		}
		if c.flag("wrap-with-directory") {
			wrapped = append(wrapped, entry{name, built})
		} else if pin {
			if err := c.node.Pins.Pin(c, built, true, ""); err != nil {
				return err
			}
		}
	}
	if err := entries.Err(); err != nil {
		return err
	}
	if c.flag("wrap-with-directory") {
		built, err := a.directory(wrapped)
		if err != nil {
			return err
		}
		if pin {
			if err := c.node.Pins.Pin(c, built, true, ""); err != nil {
				return err
			}
		}
		if err := a.report("", built); err != nil {
			return err
		}
	}
	if pin {
		return c.node.Pins.Flush(c)
	}
	return nil
}

// newAdder settles what the call, and else Import of the configuration, say about the DAG's shape.
func newAdder(c *call) (*adder, error) {
	settings := c.node.Repo.Config.Import
	version := int64(0)
	if settings.CidVersion != nil {
		version = int64(*settings.CidVersion)
	}
	version = get(c, "cid-version", version)
	rawLeaves := version > 0
	if settings.UnixFSRawLeaves != nil {
		rawLeaves = *settings.UnixFSRawLeaves
	}
	hash := get(c, "hash", "sha2-256")
	code, known := mh.Names[strings.ToLower(hash)]
	if !known {
		return nil, fmt.Errorf("unrecognized hash function: %q", hash)
	}
	prefix, err := merkledag.PrefixForCidVersion(int(version))
	if err != nil {
		return nil, err
	}
	prefix.MhType, prefix.MhLength = code, -1
	a := &adder{
		call: c, builder: prefix, dag: c.node.Added.DAG, rawLeaves: get(c, "raw-leaves", rawLeaves),
		chunker: settings.UnixFSChunker, maxLinks: helpers.DefaultLinksPerBlock,
		trickle: c.flag("trickle"), progress: c.flag("progress"), silent: c.flag("silent"),
	}
	if settings.UnixFSFileMaxLinks != nil && *settings.UnixFSFileMaxLinks > 0 {
		a.maxLinks = *settings.UnixFSFileMaxLinks
	}
	a.maxLinks = int(get(c, "max-file-links", int64(a.maxLinks)))
	if a.maxLinks < 2 || a.maxLinks > maxLinksInNode {
		return nil, fmt.Errorf("max-file-links must be between 2 and %d, got %d", maxLinksInNode, a.maxLinks)
	}
	if given := c.text("chunker"); given != "" {
		a.chunker = given
	}
	if _, err := chunk.FromString(strings.NewReader(""), a.chunker); err != nil {
		return nil, err
	}
	for _, name := range []string{"nocopy", "fscache", "inline"} {
		if c.flag(name) {
			return nil, fmt.Errorf("this daemon does not have the option %q", name)
		}
	}
	if c.flag("only-hash") {
		a.dag = forgetful{}
	}
	return a, nil
}

type entry struct {
	name string
	node ipld.Node
}

// node adds one file, folder or symbolic link and reports it.
func (a *adder) node(name string, from files.Node, depth int) (ipld.Node, error) {
	defer func() { _ = from.Close() }()
	if depth > maxPathDepth {
		return nil, fmt.Errorf("%s: folders are nested deeper than %d", name, maxPathDepth)
	}
	var built ipld.Node
	var err error
	switch from := from.(type) {
	case files.Directory:
		var inside []entry
		children := from.Entries()
		for children.Next() {
			child, err := a.node(path.Join(name, children.Name()), children.Node(), depth+1)
			if err != nil {
				return nil, err
			}
			inside = append(inside, entry{children.Name(), child})
		}
		if err := children.Err(); err != nil {
			return nil, err
		}
		built, err = a.directory(inside)
	case *files.Symlink:
		built, err = a.symlink(from.Target)
	case files.File:
		built, err = a.file(name, from)
	default:
		err = errors.New("neither a file nor a folder")
	}
	if err != nil {
		return nil, err
	}
	if name == "" {
		name = built.Cid().String()
	}
	return built, a.report(name, built)
}

func (a *adder) file(name string, from io.Reader) (ipld.Node, error) {
	if a.progress {
		from = &progressReader{Reader: from, name: name, call: a.call}
	}
	whole := &wholeReader{Reader: from}
	splitter, err := chunk.FromString(whole, a.chunker)
	if err != nil {
		return nil, err
	}
	batch := ipld.NewBufferedDAG(a.call, a.dag)
	params := helpers.DagBuilderParams{Dagserv: batch, RawLeaves: a.rawLeaves, Maxlinks: a.maxLinks, CidBuilder: a.builder}
	builder, err := params.New(splitter)
	if err != nil {
		return nil, err
	}
	layout := balanced.Layout
	if a.trickle {
		layout = trickle.Layout
	}
	built, err := layout(builder)
	if whole.failed != nil {
		return nil, whole.failed
	}
	if err != nil {
		return nil, err
	}
	return built, batch.Commit()
}

func (a *adder) directory(inside []entry) (ipld.Node, error) {
	folder, err := ufsio.NewDirectory(a.dag, ufsio.WithCidBuilder(a.builder))
	if err != nil {
		return nil, err
	}
	for _, e := range inside {
		if err := folder.AddChild(a.call, e.name, e.node); err != nil {
			return nil, err
		}
	}
	built, err := folder.GetNode()
	if err != nil {
		return nil, err
	}
	return built, a.dag.Add(a.call, built)
}

func (a *adder) symlink(target string) (ipld.Node, error) {
	data, err := unixfs.SymlinkData(target)
	if err != nil {
		return nil, err
	}
	built := merkledag.NodeWithData(data)
	if err := built.SetCidBuilder(a.builder); err != nil {
		return nil, err
	}
	return built, a.dag.Add(a.call, built)
}

func (a *adder) report(name string, built ipld.Node) error {
	if a.silent {
		return nil
	}
	size, err := built.Size()
	if err != nil {
		return err
	}
	return a.call.emitNow(addReply{Name: name, Hash: built.Cid().String(), Size: fmt.Sprint(size)})
}

var errTornBody = errors.New("the request's body ends in the middle of a file")

// wholeReader remembers why a file ended too early. Chunkers take io.ErrUnexpectedEOF, with which a torn multipart
// body ends, for the file's end, and layouts take any error before the first byte for an empty file.
type wholeReader struct {
	io.Reader
	failed error
}

func (w *wholeReader) Read(into []byte) (int, error) {
	n, err := w.Reader.Read(into)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = errTornBody
	}
	if err != nil && !errors.Is(err, io.EOF) {
		w.failed = err
	}
	return n, err
}

// progressReader tells how much was read, in steps and at the end.
type progressReader struct {
	io.Reader
	name       string
	call       *call
	read, told int64
}

func (p *progressReader) Read(into []byte) (int, error) {
	n, err := p.Reader.Read(into)
	p.read += int64(n)
	if p.read-p.told >= progressStep || (errors.Is(err, io.EOF) && p.read > p.told) {
		p.told = p.read
		if failed := p.call.emitNow(addReply{Name: p.name, Bytes: p.read}); failed != nil {
			return n, failed
		}
	}
	return n, err
}

// forgetful is a DAG service that stores nothing: for only-hash.
type forgetful struct{}

func (forgetful) Add(context.Context, ipld.Node) error        { return nil }
func (forgetful) AddMany(context.Context, []ipld.Node) error  { return nil }
func (forgetful) Remove(context.Context, cid.Cid) error       { return nil }
func (forgetful) RemoveMany(context.Context, []cid.Cid) error { return nil }
func (forgetful) Get(_ context.Context, c cid.Cid) (ipld.Node, error) {
	return nil, ipld.ErrNotFound{Cid: c}
}

func (forgetful) GetMany(_ context.Context, wanted []cid.Cid) <-chan *ipld.NodeOption {
	out := make(chan *ipld.NodeOption, len(wanted))
	for _, c := range wanted {
		out <- &ipld.NodeOption{Err: ipld.ErrNotFound{Cid: c}}
	}
	close(out)
	return out
}
