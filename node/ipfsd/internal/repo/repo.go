// Package repo is the repository on disk, in Kubo's format (version 18): either daemon opens what the other wrote.
package repo

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ipfs/boxo/keystore"
	ds "github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/mount"
	flatfs "github.com/ipfs/go-ds-flatfs"
	leveldb "github.com/ipfs/go-ds-leveldb"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"golang.org/x/sys/unix"

	"shoal/ipfsd/internal/config"
)

// Version is the repository format that Kubo 0.38 and later write.
const Version = "18"

const (
	lockFile   = "repo.lock"
	shardWidth = 2
)

// Repo is an open repository. Only one process has it open.
type Repo struct {
	Path     string
	Config   *config.Config
	SwarmKey []byte // nil when there is no swarm.key
	Data     *mount.Datastore
	Keys     keystore.Keystore

	lock *os.File
}

// Init makes a new repository and gives its peer ID.
func Init(path string, profiles []string) (peer.ID, error) {
	text, id, err := config.Init(profiles)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	lock, err := takeLock(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = lock.Close() }()
	if _, err := os.Stat(filepath.Join(path, "config")); err == nil {
		return "", fmt.Errorf("ipfs configuration file already exists in %s; it is left as it is", path)
	}
	data, err := openDatastore(path)
	if err != nil {
		return "", err
	}
	if err := data.Close(); err != nil {
		return "", err
	}
	// The configuration comes last: a repository has one only when all the rest is there.
	for _, file := range []struct {
		name string
		text []byte
		mode os.FileMode
	}{
		{"version", []byte(Version + "\n"), 0o644},
		{"datastore_spec", config.DatastoreSpec(), 0o600},
		{"config", text, 0o600},
	} {
		if err := writeFile(filepath.Join(path, file.name), file.text, file.mode); err != nil {
			return "", err
		}
	}
	return id, nil
}

func writeFile(path string, text []byte, mode os.FileMode) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, text, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

// Open takes the repository's lock, checks its version and opens what it holds.
func Open(path string) (*Repo, error) {
	if _, err := os.Stat(filepath.Join(path, "config")); errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("no IPFS repo found in %s; run: IPFS_PATH=%s ipfs init", path, path)
	}
	lock, err := takeLock(path)
	if err != nil {
		return nil, err
	}
	r := &Repo{Path: path, lock: lock}
	if err := r.open(); err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return r, nil
}

func (r *Repo) open() error {
	version, err := os.ReadFile(filepath.Join(r.Path, "version"))
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(version)); got != Version {
		return fmt.Errorf("%s is a repository of version %s; this daemon knows version %s only: use Kubo's `ipfs repo migrate`", r.Path, got, Version)
	}
	if r.Config, err = config.Load(filepath.Join(r.Path, "config")); err != nil {
		return err
	}
	if r.SwarmKey, err = os.ReadFile(filepath.Join(r.Path, "swarm.key")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if r.Keys, err = keystore.NewFSKeystore(filepath.Join(r.Path, "keystore")); err != nil {
		return err
	}
	r.Data, err = openDatastore(r.Path)
	return err
}

// takeLock takes Kubo's lock, bound to the open file so that it also holds inside one process. The kernel gives it back when its holder ends, however it ends, so it is never stale.
func takeLock(path string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(path, lockFile), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	whole := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &whole); err != nil {
		_ = file.Close()
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES) {
			return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
		}
		return nil, fmt.Errorf("lock %s: someone else has the lock: a daemon runs on this repository; stop it, or use another IPFS_PATH", file.Name())
	}
	return file, nil
}

func openDatastore(path string) (*mount.Datastore, error) {
	blocks, err := flatfs.CreateOrOpen(filepath.Join(path, "blocks"), flatfs.NextToLast(shardWidth), false)
	if err != nil {
		return nil, fmt.Errorf("open the blocks in %s: %w", path, err)
	}
	// The rest is small: pins and peer records. LevelDB's defaults are for big databases. As for the blocks above,
	// nothing waits for the disk: what is written outlives the daemon's death, and the host's ends the run anyway.
	rest, err := leveldb.NewDatastore(filepath.Join(path, "datastore"), &leveldb.Options{
		NoSync: true, Compression: opt.NoCompression, BlockCacheCapacity: 1 << 20, WriteBuffer: 1 << 20,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the datastore in %s: %w", path, err), blocks.Close())
	}
	return mount.New([]mount.Mount{
		{Prefix: ds.NewKey("/blocks"), Datastore: blocks},
		{Prefix: ds.NewKey("/"), Datastore: rest},
	}), nil
}

// WriteAPI leaves the RPC's address where command-line tools look for it.
func (r *Repo) WriteAPI(address string) error {
	return writeFile(filepath.Join(r.Path, "api"), []byte(address), 0o644)
}

// Close closes the repository and gives its lock back.
func (r *Repo) Close() error {
	err := os.Remove(filepath.Join(r.Path, "api"))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, r.Data.Close(), r.lock.Close())
}
