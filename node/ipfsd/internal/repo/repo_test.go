package repo

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ipfs/boxo/keystore"
	blocks "github.com/ipfs/go-block-format"
	"github.com/ipfs/go-cid"
	ipld "github.com/ipfs/go-ipld-format"
	mh "github.com/multiformats/go-multihash"
	dto "github.com/prometheus/client_model/go"
)

func initialized(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "deep", "repo")
	if _, err := Init(path, []string{"test"}); err != nil {
		t.Fatal(err)
	}
	return path
}

func opened(t *testing.T, path string) *Repo {
	t.Helper()
	r, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestInit(t *testing.T) {
	path := initialized(t)
	if got := string(read(t, filepath.Join(path, "version"))); got != "18\n" {
		t.Errorf("version %q", got)
	}
	for _, name := range []string{"datastore_spec", "blocks/SHARDING", "datastore/CURRENT"} {
		if _, err := os.Stat(filepath.Join(path, name)); err != nil {
			t.Error(err)
		}
	}
	info, err := os.Stat(filepath.Join(path, "config"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the configuration holds a private key and has mode %v, %v", info.Mode(), err)
	}
	r := opened(t, path)
	if r.SwarmKey != nil {
		t.Error("a swarm key from nowhere")
	}
	if names, err := r.Keys.List(); err != nil || len(names) != 0 {
		t.Error("keys from nowhere:", names, err)
	}
}

func TestInitTwiceChangesNothing(t *testing.T) {
	path := initialized(t)
	before := read(t, filepath.Join(path, "config"))
	if _, err := Init(path, nil); err == nil || !strings.Contains(err.Error(), "already exists") || !strings.Contains(err.Error(), path) {
		t.Fatal("the message must say that there is one, and where:", err)
	}
	if !bytes.Equal(before, read(t, filepath.Join(path, "config"))) {
		t.Fatal("the configuration was changed")
	}
}

func TestInitRefusesAnUnknownProfileAndLeavesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "repo")
	if _, err := Init(path, []string{"nonsense"}); err == nil {
		t.Fatal("taken")
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Fatal("something was made:", err)
	}
}

func TestInitAfterAnInterruptedInit(t *testing.T) {
	path := initialized(t)
	if err := os.Rename(filepath.Join(path, "config"), filepath.Join(path, "config.new")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "ipfs init") {
		t.Fatal("half a repository must not open, and the message must say the cure:", err)
	}
	id, err := Init(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r := opened(t, path); r.Config.ID() != id {
		t.Fatal("not the identity that Init told")
	}
}

func TestOpenWithoutRepository(t *testing.T) {
	path := t.TempDir()
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "ipfs init") {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(path); len(entries) != 0 {
		t.Fatal("opening nothing left something:", entries)
	}
}

func TestLockOfALivingOne(t *testing.T) {
	path := initialized(t)
	first := opened(t, path)
	for what, again := range map[string]func() error{
		"open": func() error { _, err := Open(path); return err },
		"init": func() error { _, err := Init(path, nil); return err },
	} {
		if err := again(); err == nil || !strings.Contains(err.Error(), "someone else has the lock") || !strings.Contains(err.Error(), path) {
			t.Errorf("%s beside a living one: %v", what, err)
		}
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	opened(t, path)
}

func TestStaleLockAndLeftovers(t *testing.T) {
	path := initialized(t)
	if err := os.MkdirAll(filepath.Join(path, "blocks", "AB"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"repo.lock", "api", "config.new", "version.new", "api.new", "blocks/AB/put-123456", "datastore/LOCK"} {
		write(t, filepath.Join(path, name), "left by one that was killed")
	}
	r := opened(t, path)
	if err := r.WriteAPI("/ip4/127.0.0.1/tcp/1"); err != nil {
		t.Fatal(err)
	}
	if got := string(read(t, filepath.Join(path, "api"))); got != "/ip4/127.0.0.1/tcp/1" {
		t.Errorf("api says %q", got)
	}
	keys, err := r.Blocks().AllKeysChan(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for key := range keys {
		t.Error("half a block counts as one:", key)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(path, "api")); !os.IsNotExist(err) {
		t.Error("the file api outlives the daemon")
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, row := range map[string]struct{ file, text, says string }{
		"an older version": {"version", "17\n", "version 17"},
		"a newer version":  {"version", "19\n", "migrate"},
		"an empty version": {"version", "", "version"},
		"a broken config":  {"config", "{\n\"Identity\": 1}", "config:2: Identity:"},
		"a torn block dir": {"blocks/SHARDING", "nonsense", "blocks"},
	} {
		t.Run(name, func(t *testing.T) {
			path := initialized(t)
			before := read(t, filepath.Join(path, row.file))
			write(t, filepath.Join(path, row.file), row.text)
			if _, err := Open(path); err == nil || !strings.Contains(err.Error(), row.says) || !strings.Contains(err.Error(), path) {
				t.Fatal(err)
			}
			write(t, filepath.Join(path, row.file), string(before))
			opened(t, path) // a refusal keeps no lock and nothing open
		})
	}
}

func TestMissingVersion(t *testing.T) {
	path := initialized(t)
	if err := os.Remove(filepath.Join(path, "version")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "version") {
		t.Fatal(err)
	}
}

func TestKeysAndSwarmKeyAreRead(t *testing.T) {
	path := initialized(t)
	write(t, filepath.Join(path, "swarm.key"), "the key")
	r := opened(t, path)
	if string(r.SwarmKey) != "the key" {
		t.Errorf("swarm key %q", r.SwarmKey)
	}
	if _, err := r.Keys.Get("nobody"); err != keystore.ErrNoSuchKey {
		t.Error(err)
	}
}

func corruptCount(t *testing.T) float64 {
	t.Helper()
	var m dto.Metric
	if err := corruptBlocks.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

// fileOf finds the one stored block on disk.
func fileOf(t *testing.T, path string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(path, "blocks", "*", "*.data"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	return found[0]
}

func TestCorruptBlockIsReportedAndRemoved(t *testing.T) {
	ctx := context.Background()
	for name, wrong := range map[string]string{"other bytes": "evil", "no bytes": "", "more bytes": "goodgood"} {
		t.Run(name, func(t *testing.T) {
			path := initialized(t)
			store := opened(t, path).Blocks()
			good := blocks.NewBlock([]byte("good"))
			if err := store.Put(ctx, good); err != nil {
				t.Fatal(err)
			}
			if got, err := store.Get(ctx, good.Cid()); err != nil || string(got.RawData()) != "good" {
				t.Fatal(err)
			}
			file, before := fileOf(t, path), corruptCount(t)
			write(t, file, wrong)
			if got, err := store.Get(ctx, good.Cid()); !ipld.IsNotFound(err) || got != nil {
				t.Fatalf("a corrupt block was given out: %v, %v", got, err)
			}
			if _, err := os.Stat(file); !os.IsNotExist(err) {
				t.Error("it is still on disk")
			}
			if corruptCount(t) != before+1 {
				t.Error("it was not counted")
			}
			if has, err := store.Has(ctx, good.Cid()); has || err != nil {
				t.Error("it still counts as stored", err)
			}
			if err := store.Put(ctx, good); err != nil {
				t.Fatal(err)
			}
			if got, err := store.Get(ctx, good.Cid()); err != nil || string(got.RawData()) != "good" {
				t.Error("a good copy does not heal it:", err)
			}
		})
	}
}

func TestBlockInItsOwnCID(t *testing.T) {
	ctx := context.Background()
	store := opened(t, initialized(t)).Blocks()
	inline, err := cid.V1Builder{Codec: cid.Raw, MhType: mh.IDENTITY, MhLength: -1}.Sum([]byte("small"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := store.Get(ctx, inline); err != nil || string(got.RawData()) != "small" {
		t.Fatal("its bytes stand in its CID:", err)
	}
	if has, err := store.Has(ctx, inline); !has || err != nil {
		t.Error(has, err)
	}
	keys, err := store.AllKeysChan(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for key := range keys {
		t.Error("it was stored:", key)
	}
}
