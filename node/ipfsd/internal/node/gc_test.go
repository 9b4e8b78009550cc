package node_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/ipfs/boxo/ipld/merkledag"
	pin "github.com/ipfs/boxo/pinning/pinner"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	"github.com/ipld/go-ipld-prime/codec/dagcbor"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	mh "github.com/multiformats/go-multihash"

	"shoal/ipfsd/internal/nodetest"
)

// stored puts bytes under a codec into the node's blockstore.
func stored(t testing.TB, n *nodetest.Running, codec uint64, data []byte) cid.Cid {
	t.Helper()
	key, err := cid.V1Builder{Codec: codec, MhType: mh.SHA2_256, MhLength: -1}.Sum(data)
	if err != nil {
		t.Fatal(err)
	}
	block, err := blocks.NewBlockWithCid(data, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Online.Blocks.AddBlock(nodetest.Context(t), block); err != nil {
		t.Fatal(err)
	}
	return key
}

// record is a DAG-CBOR node with links.
func record(t testing.TB, n *nodetest.Running, links ...cid.Cid) cid.Cid {
	t.Helper()
	value, err := qp.BuildMap(basicnode.Prototype.Any, 1, func(m datamodel.MapAssembler) {
		qp.MapEntry(m, "inside", qp.List(int64(len(links)), func(l datamodel.ListAssembler) {
			for _, link := range links {
				qp.ListEntry(l, qp.Link(cidlink.Link{Cid: link}))
			}
		}))
	})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := dagcbor.Encode(value, &out); err != nil {
		t.Fatal(err)
	}
	return stored(t, n, cid.DagCBOR, out.Bytes())
}

func pinned(t testing.TB, n *nodetest.Running, key cid.Cid, mode pin.Mode) {
	t.Helper()
	if err := n.Pins.PinWithMode(nodetest.Context(t), key, mode, ""); err != nil {
		t.Fatal(err)
	}
}

func collect(t testing.TB, n *nodetest.Running) (removed []cid.Cid, err error) {
	t.Helper()
	err = n.CollectGarbage(nodetest.Context(t), func(key cid.Cid) error {
		removed = append(removed, key)
		return nil
	})
	return removed, err
}

func expect(t testing.TB, n *nodetest.Running, there bool, keys ...cid.Cid) {
	t.Helper()
	for _, key := range keys {
		if has, err := n.Blockstore.Has(nodetest.Context(t), key); err != nil || has != there {
			t.Errorf("%s: stored is %v, want %v, %v", key, has, there, err)
		}
	}
}

func TestGarbageIsWhatNoPinReaches(t *testing.T) {
	n := nodetest.New(t)
	leaf, deep := stored(t, n, cid.Raw, []byte("leaf")), stored(t, n, cid.Raw, []byte("deep"))
	middle := record(t, n, deep)
	root := record(t, n, leaf, middle)
	orphan := record(t, n, leaf) // reaches what is kept, but nothing reaches it
	direct := record(t, n, stored(t, n, cid.Raw, []byte("not kept by a direct pin")))
	loose := stored(t, n, cid.Raw, []byte("loose"))
	pinned(t, n, root, pin.Recursive)
	pinned(t, n, direct, pin.Direct)

	removed, err := collect(t, n)
	if err != nil {
		t.Fatal(err)
	}
	expect(t, n, true, root, leaf, middle, deep, direct)
	expect(t, n, false, orphan, loose)
	if len(removed) != 3 { // and the direct pin's child
		t.Errorf("told of %d removals: %v", len(removed), removed)
	}
	if again, err := collect(t, n); err != nil || len(again) != 0 {
		t.Error("a second collection found", again, err)
	}
}

func TestUnpinnedIsCollected(t *testing.T) {
	n := nodetest.New(t)
	leaf := stored(t, n, cid.Raw, []byte("leaf"))
	root := record(t, n, leaf)
	pinned(t, n, root, pin.Recursive)
	if err := n.Pins.Unpin(nodetest.Context(t), root, true); err != nil {
		t.Fatal(err)
	}
	if _, err := collect(t, n); err != nil {
		t.Fatal(err)
	}
	expect(t, n, false, root, leaf)
}

func TestDirectPinDoesNotHideARecursiveOne(t *testing.T) {
	n := nodetest.New(t)
	leaf := stored(t, n, cid.Raw, []byte("leaf"))
	middle := record(t, n, leaf)
	root := record(t, n, middle)
	pinned(t, n, middle, pin.Direct)
	pinned(t, n, root, pin.Recursive)
	if _, err := collect(t, n); err != nil {
		t.Fatal(err)
	}
	expect(t, n, true, root, middle, leaf)
}

func TestIncompletePinStopsTheCollectionBeforeItBegins(t *testing.T) {
	n := nodetest.New(t)
	leaf := stored(t, n, cid.Raw, []byte("leaf")) // what only the missing node would tell to be needed
	middle := record(t, n, leaf)
	root := record(t, n, middle)
	loose := stored(t, n, cid.Raw, []byte("loose"))
	pinned(t, n, root, pin.Recursive)
	if err := n.Blockstore.DeleteBlock(nodetest.Context(t), middle); err != nil {
		t.Fatal(err)
	}
	removed, err := collect(t, n)
	if err == nil || !strings.Contains(err.Error(), root.String()) || !ipld.IsNotFound(err) {
		t.Error("the message must name the pin:", err)
	}
	if len(removed) != 0 {
		t.Error("removed all the same:", removed)
	}
	expect(t, n, true, root, leaf, loose)
}

func TestCollectionEndsWhenItsListenerFails(t *testing.T) {
	n := nodetest.New(t)
	for _, text := range []string{"a", "b", "c"} {
		stored(t, n, cid.Raw, []byte(text))
	}
	hungUp := errors.New("hung up")
	count := 0
	err := n.CollectGarbage(nodetest.Context(t), func(cid.Cid) error { count++; return hungUp })
	if !errors.Is(err, hungUp) || count != 1 {
		t.Fatal(count, err)
	}
	if _, err := collect(t, n); err != nil {
		t.Fatal("the lock was kept:", err)
	}
}

func TestCancelledCollectionSaysSo(t *testing.T) {
	n := nodetest.New(t)
	stored(t, n, cid.Raw, []byte("loose"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.CollectGarbage(ctx, func(cid.Cid) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

func TestPinOfABlockInItsOwnCID(t *testing.T) {
	n := nodetest.New(t)
	inline, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.IDENTITY, MhLength: -1}.Sum([]byte("small"))
	if err != nil {
		t.Fatal(err)
	}
	root := record(t, n, inline)
	pinned(t, n, root, pin.Recursive)
	if _, err := collect(t, n); err != nil {
		t.Fatal("its child is always there:", err)
	}
	expect(t, n, true, root)
}

// TestSameBytesUnderTwoCodecs: the blockstore knows a block by its hash alone, the links in it depend on its codec.
func TestSameBytesUnderTwoCodecs(t *testing.T) {
	n := nodetest.New(t)
	leaf := stored(t, n, cid.Raw, []byte("leaf"))
	root := record(t, n, leaf)
	pinned(t, n, cid.NewCidV1(cid.Raw, root.Hash()), pin.Recursive)
	pinned(t, n, root, pin.Recursive)
	if _, err := collect(t, n); err != nil {
		t.Fatal(err)
	}
	expect(t, n, true, root, leaf)
	if err := merkledag.FetchGraph(nodetest.Context(t), root, n.Offline.DAG); err != nil {
		t.Error("the pinned DAG is broken:", err)
	}
}
