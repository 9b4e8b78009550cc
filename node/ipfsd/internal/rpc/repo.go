package rpc

import (
	"errors"

	"github.com/ipfs/go-cid"
	ds "github.com/ipfs/go-datastore"

	"shoal/ipfsd/internal/repo"
)

var repoCommands = map[string]command{
	"repo/stat": {run: repoStat, options: []option{opt(flag, "size-only", "s"), opt(flag, "human", "H")}},
	"repo/gc":   {run: repoGC, options: []option{opt(flag, "quiet", "q"), opt(flag, "silent"), opt(flag, "stream-errors")}},
}

func repoStat(c *call) error {
	size, err := ds.DiskUsage(c, c.node.Repo.Data)
	if err != nil {
		return err
	}
	type sizes struct {
		RepoSize   uint64
		StorageMax int64
	}
	both := sizes{size, c.node.Repo.Config.StorageMaxBytes()}
	if c.flag("size-only") {
		return c.emit(both)
	}
	keys, err := c.node.Blockstore.AllKeysChan(c)
	if err != nil {
		return err
	}
	count := 0
	for range keys {
		count++
	}
	if err := c.Err(); err != nil {
		return err
	}
	return c.emit(struct {
		sizes
		NumObjects int
		RepoPath   string
		Version    string
	}{both, count, c.node.Repo.Path, "fs-repo@" + repo.Version})
}

func repoGC(c *call) error {
	err := c.node.CollectGarbage(c, func(key cid.Cid) error {
		if c.flag("silent") {
			return nil
		}
		return c.emit(struct{ Key linkJSON }{linkJSON{key.String()}})
	})
	if c.flag("stream-errors") && err != nil {
		return errors.Join(c.emit(struct{ Error string }{err.Error()}), err)
	}
	return err
}
