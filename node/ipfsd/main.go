// Command ipfs is Shoal's embedded IPFS daemon: Kubo's libraries, wire, repository and RPC, without what a
// private fleet does not need.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"shoal/ipfsd/internal/config"
	"shoal/ipfsd/internal/node"
	"shoal/ipfsd/internal/repo"
	"shoal/ipfsd/internal/rpc"
)

const usage = `Shoal's embedded IPFS daemon, for private swarms.

  ipfs init [--profile=NAME,…]   make a repository in $IPFS_PATH (else ~/.ipfs)
  ipfs daemon                    run it; SIGTERM and POST /api/v0/shutdown end it
  ipfs version [-n]              say which daemon this is

It reads Kubo's configuration file and repository and answers the part of Kubo's RPC that Shoal uses.
One key is its own: Shoal.Transport, prompt (default), stock or patient, says how soon a dead link is noticed.

  IPFS_PATH            the repository
  LIBP2P_FORCE_PNET=1  refuse to start without a swarm.key
  GOMEMLIMIT, GOGC     Go's own; the default keeps the daemon small

Profiles: %s
`

// Go's collector may let the heap double; a daemon beside every worker should not. The limit is soft. But a heap of
// few megabytes would be collected several times in each round: what is reserved is never touched, takes no memory
// and counts as heap, so that at least half as much is allocated between two collections.
const (
	defaultGCPercent   = 50
	defaultMemoryLimit = 128 << 20
	reservedHeap       = 4 << 20
)

func main() {
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		_, err := fmt.Fprintf(out, usage, strings.Join(config.ProfileNames(), ", "))
		return err
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "init":
		profile := flags.String("profile", "", "profiles to apply, with commas between")
		flags.StringVar(profile, "p", "", "short for --profile")
		if err := parse(flags, args[1:]); err != nil {
			return helped(err)
		}
		return initialize(out, *profile)
	case "daemon":
		flags.Bool("migrate", false, "taken for Kubo's sake; there is nothing to migrate")
		if err := parse(flags, args[1:]); err != nil {
			return helped(err)
		}
		return daemon(out)
	case "version":
		number := flags.Bool("n", false, "only the number")
		if err := parse(flags, args[1:]); err != nil {
			return helped(err)
		}
		if *number {
			_, err := fmt.Fprintln(out, node.Version)
			return err
		}
		_, err := fmt.Fprintln(out, "shoal-ipfsd version", node.Version)
		return err
	}
	return fmt.Errorf("no command is called %q; run: ipfs help", args[0])
}

func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s takes no argument %q", flags.Name(), flags.Arg(0))
	}
	return nil
}

// helped takes a call for help, which the flags have answered, as a success.
func helped(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	return err
}

func repository() (string, error) {
	if path := os.Getenv("IPFS_PATH"); path != "" {
		return filepath.Abs(path)
	}
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".ipfs"), err
}

func initialize(out io.Writer, profile string) error {
	path, err := repository()
	if err != nil {
		return err
	}
	var names []string
	for name := range strings.SplitSeq(profile, ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	id, err := repo.Init(path, names)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "initializing IPFS node at %s\npeer identity: %s\n", path, id)
	return err
}

func daemon(out io.Writer) (err error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(defaultGCPercent)
		reserved := make([]byte, reservedHeap)
		defer runtime.KeepAlive(reserved)
	}
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(defaultMemoryLimit)
	}
	path, err := repository()
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	opened, err := repo.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, opened.Close()) }()
	started, err := node.Start(opened, prometheus.DefaultRegisterer)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, started.Close()) }()
	server := rpc.New(started, stop)
	addresses, err := server.Listen(opened.Config.API())
	if err != nil {
		return err
	}
	if err := opened.WriteAPI(addresses[0].String()); err != nil {
		return err
	}
	failed := server.Serve()
	for _, address := range started.Host.Addrs() {
		_, _ = fmt.Fprintln(out, "Swarm listening on", address)
	}
	for _, address := range addresses {
		_, _ = fmt.Fprintln(out, "RPC API server listening on", address)
	}
	_, _ = fmt.Fprintf(out, "%s %s, transport %s\nDaemon is ready\n", node.AgentVersion, started.Host.ID(), opened.Config.Transport().Name)
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	// A second signal ends the process at once.
	stop()
	grace, done := context.WithTimeout(context.Background(), opened.Config.ShutdownTimeout())
	defer done()
	return errors.Join(err, server.Shutdown(grace))
}
