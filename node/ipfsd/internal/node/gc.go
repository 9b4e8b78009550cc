package node

import (
	"context"
	"fmt"

	"github.com/ipfs/boxo/ipld/merkledag"
	pin "github.com/ipfs/boxo/pinning/pinner"
	"github.com/ipfs/go-cid"
)

// CollectGarbage removes every block that no pin reaches and tells of each. It stops before the first removal when
// a pinned DAG is incomplete, since then nobody knows what it needs.
func (n *Node) CollectGarbage(ctx context.Context, removed func(cid.Cid) error) error {
	unlock := n.Blockstore.GCLock(ctx)
	defer unlock.Unlock(ctx)
	keep, err := n.reachable(ctx)
	if err != nil {
		return err
	}
	keys, err := n.Blockstore.AllKeysChan(ctx)
	if err != nil {
		return err
	}
	for key := range keys {
		if _, kept := keep[string(key.Hash())]; kept {
			continue
		}
		if err := n.Blockstore.DeleteBlock(ctx, key); err != nil {
			return fmt.Errorf("remove %s: %w", key, err)
		}
		if err := removed(key); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// reachable gives the multihashes of all pinned blocks. Multihashes, because the blockstore forgets the codec of
// what it stores: every key comes back as a raw CID.
func (n *Node) reachable(ctx context.Context) (map[string]struct{}, error) {
	keep := map[string]struct{}{}
	links := merkledag.GetLinksWithDAG(n.Offline.DAG)
	// Visited are CIDs, though kept are multihashes: one block's links depend on the codec that it is read with.
	visited := cid.NewSet()
	visit := func(c cid.Cid) bool {
		keep[string(c.Hash())] = struct{}{}
		return visited.Visit(c)
	}
	walk := func(pins <-chan pin.StreamedPin, recursive bool) error {
		for p := range pins {
			if p.Err != nil {
				return p.Err
			}
			if !recursive {
				keep[string(p.Pin.Key.Hash())] = struct{}{}
				continue
			}
			if err := merkledag.Walk(ctx, links, p.Pin.Key, visit); err != nil {
				return fmt.Errorf("pinned DAG %s is incomplete, nothing was removed: %w", p.Pin.Key, err)
			}
		}
		return nil
	}
	// Recursive pins first: a direct pin must not hide the children of a recursive one.
	if err := walk(n.Pins.RecursiveKeys(ctx, false), true); err != nil {
		return nil, err
	}
	return keep, walk(n.Pins.DirectKeys(ctx, false), false)
}
