package rpc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/ipfs/boxo/ipld/merkledag"
	"github.com/ipfs/boxo/ipld/unixfs"
	ufsio "github.com/ipfs/boxo/ipld/unixfs/io"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// dagPath is /ipfs/CID/name/name, or the same without /ipfs/.
type dagPath struct {
	root cid.Cid
	rest []string
}

func parsePath(given string) (dagPath, error) {
	bare := strings.TrimPrefix(strings.TrimPrefix(given, "/ipfs/"), "/ipld/")
	words := strings.Split(strings.Trim(bare, "/"), "/")
	root, err := cid.Decode(words[0])
	if err != nil {
		return dagPath{}, fmt.Errorf("invalid path %q: %w", given, err)
	}
	p := dagPath{root: root}
	for _, word := range words[1:] {
		if word != "" {
			p.rest = append(p.rest, word)
		}
	}
	return p, nil
}

// nodeAt walks the path as far as it leads through links; what is left lies inside the node.
func (c *call) nodeAt(ctx context.Context, getter ipld.NodeGetter, given string) (ipld.Node, []string, error) {
	p, err := parsePath(given)
	if err != nil {
		return nil, nil, err
	}
	current, err := getter.Get(ctx, p.root)
	if err != nil {
		return nil, nil, err
	}
	rest := p.rest
	for len(rest) > 0 {
		next, left, err := step(ctx, c.view.DAG, getter, current, rest)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", given, err)
		}
		if next == nil {
			return current, rest, nil
		}
		current, rest = next, left
	}
	return current, nil, nil
}

// step follows one link of the path, or gives nil when the rest of it names a value inside the node.
func step(ctx context.Context, dag ipld.DAGService, getter ipld.NodeGetter, from ipld.Node, names []string) (ipld.Node, []string, error) {
	if isDirectory(from) {
		folder, err := ufsio.NewDirectoryFromNode(dag, from)
		if err != nil {
			return nil, nil, err
		}
		child, err := folder.Find(ctx, names[0])
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil, fmt.Errorf("no link named %q under %s", names[0], from.Cid())
		}
		return child, names[1:], err
	}
	value, left, err := from.Resolve(names)
	if err != nil {
		return nil, nil, err
	}
	link, isLink := value.(*ipld.Link)
	if !isLink {
		return nil, nil, nil
	}
	child, err := getter.Get(ctx, link.Cid)
	return child, left, err
}

func isDirectory(n ipld.Node) bool {
	proto, ok := n.(*merkledag.ProtoNode)
	if !ok {
		return false
	}
	fs, err := unixfs.FSNodeFromBytes(proto.Data())
	return err == nil && fs.IsDir()
}

// cidAt is the CID at the end of a path that leads through links only.
func (c *call) cidAt(given string) (cid.Cid, error) {
	p, err := parsePath(given)
	if err != nil || len(p.rest) == 0 {
		return p.root, err
	}
	found, rest, err := c.nodeAt(c, merkledag.NewSession(c, c.view.DAG), given)
	if err != nil {
		return cid.Undef, err
	}
	if len(rest) > 0 {
		return cid.Undef, fmt.Errorf("%s: %q is a value inside a node, not a node", given, strings.Join(rest, "/"))
	}
	return found.Cid(), nil
}

// linkJSON is a CID as DAG-JSON writes it.
type linkJSON struct {
	Cid string `json:"/"`
}

func asLinks(cids []cid.Cid) []linkJSON {
	out := make([]linkJSON, 0, len(cids))
	for _, c := range cids {
		out = append(out, linkJSON{c.String()})
	}
	return out
}
