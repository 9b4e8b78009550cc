package repo

import (
	"context"
	"errors"
	"log/slog"

	"github.com/ipfs/boxo/blockstore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
)

// Blocks is the blockstore of the repository. Blocks whose CID holds all their bytes are always there and never
// stored, as Kubo has it.
func (r *Repo) Blocks() blockstore.GCBlockstore {
	plain := blockstore.NewBlockstore(r.Data)
	return blockstore.NewGCBlockstore(blockstore.NewIdStore(honest{plain}), blockstore.NewGCLocker())
}

// honest never gives out bytes that are not what they are called. A block that went bad on disk is reported and
// removed, so that it counts as missing and is fetched again.
type honest struct{ blockstore.Blockstore }

func (h honest) Get(ctx context.Context, c cid.Cid) (blocks.Block, error) {
	block, err := (&blockstore.ValidatingBlockstore{Blockstore: h.Blockstore}).Get(ctx, c)
	if !errors.Is(err, blockstore.ErrHashMismatch) {
		return block, err
	}
	slog.Error("corrupt block removed: its bytes have another hash; it will be fetched again", "cid", c)
	corruptBlocks.Inc()
	if err := h.DeleteBlock(ctx, c); err != nil {
		return nil, err
	}
	return nil, ipld.ErrNotFound{Cid: c}
}
