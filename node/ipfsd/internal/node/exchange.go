package node

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ipfs/boxo/bitswap"
	blocks "github.com/ipfs/go-block-format"
)

// maxDelayedBytes bounds what waits; beyond it blocks are passed on at once.
const maxDelayedBytes = 8 << 20

// fetching is Bitswap for fetched blocks: it passes them on a little later.
//
// When many peers fetch one object at once, each tells the others of every block the moment it has it. Those then
// take it for a source, ask it for blocks that it does not have yet either, and get these twice: from the true
// source and, unasked by then, from the peer. With a short delay everybody asks who really has the blocks. Whoever
// asks after we have a block is served at once, and so is whoever waits for what is added here.
type fetching struct {
	*bitswap.Bitswap
	delay        time.Duration
	delayedBytes *atomic.Int64
}

func newFetching(b *bitswap.Bitswap, delay time.Duration) fetching {
	return fetching{b, delay, new(atomic.Int64)}
}

// NotifyNewBlocks tells our own waiting calls now and the peers later.
func (f fetching) NotifyNewBlocks(ctx context.Context, fetched ...blocks.Block) error {
	if f.delay == 0 {
		return f.Bitswap.NotifyNewBlocks(ctx, fetched...)
	}
	err := f.Client.NotifyNewBlocks(ctx, fetched...)
	var size int64
	for _, b := range fetched {
		size += int64(len(b.RawData()))
	}
	if f.delayedBytes.Add(size) > maxDelayedBytes {
		f.delayedBytes.Add(-size)
		return errors.Join(err, f.Server.NotifyNewBlocks(ctx, fetched...))
	}
	later := slices.Clone(fetched) // the caller uses its slice again
	time.AfterFunc(f.delay, func() {
		f.delayedBytes.Add(-size)
		_ = f.Server.NotifyNewBlocks(context.WithoutCancel(ctx), later...) // never fails, and says nothing when closed
	})
	return err
}
