// Package rpc is Kubo's RPC over HTTP, as far as Shoal uses it: what Kubo answers, this answers.
package rpc

import (
	"maps"
	"slices"
)

// command is one endpoint under /api/v0/: what it takes, and what it does.
type command struct {
	minArgs int
	maxArgs int // many: any number
	options []option
	body    body
	run     func(*call) error
}

const many = 1 << 20

// body says what a command reads beside its URL. The bound holds before anything is parsed.
type body struct {
	name     string // of the multipart part, for the message when it is missing; empty: the command has no body
	maxBytes int64  // 0: bounded by Datastore.StorageMax
}

// kind is what an option's text must be.
type kind int

const (
	flag kind = iota
	number
	text
	duration
)

// option is a parameter of the query. Later names are aliases of the first.
type option struct {
	kind  kind
	names []string
}

func opt(k kind, names ...string) option { return option{k, names} }

// globalOptions are taken by every command. Those that only concern a command line change nothing here.
var globalOptions = []option{
	opt(duration, "timeout"),
	opt(flag, "offline"),
	opt(text, "encoding", "enc"),
	opt(flag, "stream-channels"),
	opt(text, "cid-base"),
	opt(flag, "upgrade-cidv0-in-output"),
}

// commands is the whole table.
var commands = join(nodeCommands, contentCommands, blockCommands, dagCommands, pinCommands, repoCommands,
	swarmCommands, tunnelCommands, counterCommands, keyCommands, pubsubCommands)

func join(groups ...map[string]command) map[string]command {
	all := map[string]command{}
	for _, group := range groups {
		for path, c := range group {
			if _, twice := all[path]; twice {
				panic("two commands are called " + path)
			}
			all[path] = c
		}
	}
	return all
}

func (c command) option(name string) (option, bool) {
	for _, known := range slices.Concat(c.options, globalOptions) {
		if slices.Contains(known.names, name) {
			return known, true
		}
	}
	return option{}, false
}

// CommandInfo describes one command for whoever wants to check what he sends.
type CommandInfo struct {
	Name        string
	Subcommands []CommandInfo `json:",omitempty"`
	Options     []OptionInfo  `json:",omitempty"`
}

// OptionInfo is an option's name and aliases.
type OptionInfo struct{ Names []string }

// Describe lists every command with every option.
func Describe() CommandInfo {
	root := CommandInfo{Name: "ipfs"}
	for _, known := range globalOptions {
		root.Options = append(root.Options, OptionInfo{known.names})
	}
	for _, path := range slices.Sorted(maps.Keys(commands)) {
		info := CommandInfo{Name: path}
		for _, known := range commands[path].options {
			info.Options = append(info.Options, OptionInfo{known.names})
		}
		root.Subcommands = append(root.Subcommands, info)
	}
	return root
}
