package rpc

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

var sample = command{minArgs: 1, maxArgs: 2, options: []option{
	opt(flag, "quiet", "q"), opt(number, "count", "n"), opt(text, "name"), opt(duration, "every"),
}}

func TestParseQuery(t *testing.T) {
	for query, want := range map[string]string{
		"arg=a":                       "[a] map[] []",
		"arg=a&arg=b":                 "[a b] map[] []",
		"arg=%2Fipfs%2Fx+y":           "[/ipfs/x y] map[] []",
		"arg=a&quiet":                 "[a] map[quiet:true] []",
		"arg=a&q=true":                "[a] map[quiet:true] []",
		"arg=a&q=False":               "[a] map[quiet:false] []",
		"arg=a&q=0":                   "[a] map[quiet:false] []",
		"arg=a&n=-3":                  "[a] map[count:-3] []",
		"arg=a&name=":                 "[a] map[name:] []",
		"arg=a&every=1m30s":           "[a] map[every:1m30s] []",
		"arg=a&timeout=2s&offline":    "[a] map[offline:true timeout:2s] []",
		"arg=a&enc=json&cid-base=z":   "[a] map[cid-base:z encoding:json] []",
		"arg=a&foo=1":                 "[a] map[] [foo]",
		"arg=a&Quiet=1":               "[a] map[] [Quiet]",
		"arg=a&stream-channels=true&": "[a] map[stream-channels:true] []",
	} {
		args, values, unknown, err := parseQuery(sample, query)
		if got := fmt.Sprint(args, values, unknown); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", query, got, err, want)
		}
	}
}

func TestParseQueryRefuses(t *testing.T) {
	for query, says := range map[string]string{
		"":                            "argument 1",
		"quiet":                       "argument 1",
		"arg=a&arg=b&arg=c":           "at most 2",
		"arg=a&q=maybe":               `option "q": expected true or false`,
		"arg=a&n=1.5":                 `option "n": expected a whole number`,
		"arg=a&n=":                    `option "n": expected a whole number`,
		"arg=a&every=5":               `option "every": expected a duration with a unit`,
		"arg=a&timeout=zz":            `option "timeout": expected a duration`,
		"arg=a&timeout=-1s":           `option "timeout": expected a duration`,
		"arg=a&n=1&n=1":               `option "n" is given 2 times`,
		"arg=a&n=1&count=1":           `option "count" is given twice`,
		"arg=%zz":                     "cannot be read",
		"arg=a;arg=b":                 "cannot be read",
		"arg=a&n=9999999999999999999": `option "n": expected a whole number`,
	} {
		args, values, unknown, err := parseQuery(sample, query)
		var refused *refusal
		if !errors.As(err, &refused) || refused.status != http.StatusBadRequest || !strings.Contains(refused.say, says) {
			t.Errorf("%s: %v, want %s", query, err, says)
		}
		if args != nil || values != nil || unknown != nil {
			t.Errorf("%s: an error and a value", query)
		}
	}
}

func TestGet(t *testing.T) {
	c := &call{values: map[string]any{"count": int64(3), "quiet": true, "name": "x", "every": time.Second}}
	if get(c, "count", int64(7)) != 3 || get(c, "none", int64(7)) != 7 || !c.flag("quiet") || c.flag("none") || c.text("name") != "x" || c.text("none") != "" {
		t.Error("options are not given as they were parsed")
	}
}

// TestTableIsSound: a name that stands twice, or a kind with a wrong type, would show only when somebody uses it.
func TestTableIsSound(t *testing.T) {
	for path, c := range commands {
		if c.run == nil || c.minArgs > c.maxArgs {
			t.Errorf("%s: %+v", path, c)
		}
		seen := map[string]bool{"arg": true}
		for _, known := range slices.Concat(c.options, globalOptions) {
			for _, name := range known.names {
				if seen[name] {
					t.Errorf("%s: the option %s stands twice", path, name)
				}
				seen[name] = true
			}
		}
		if c.body.name == "" && c.body.maxBytes != 0 {
			t.Errorf("%s: a bound without a body", path)
		}
	}
}

func TestDescribeTellsEveryCommandAndOption(t *testing.T) {
	info := Describe()
	if len(info.Subcommands) != len(commands) || len(info.Options) != len(globalOptions) {
		t.Fatalf("%d of %d commands", len(info.Subcommands), len(commands))
	}
	for _, sub := range info.Subcommands {
		known, found := commands[sub.Name]
		if !found || len(known.options) != len(sub.Options) {
			t.Errorf("%s is described wrongly", sub.Name)
		}
	}
}

const sampleCID = "bafkreifzjut3te7nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e"

func TestParsePath(t *testing.T) {
	for given, want := range map[string]string{
		sampleCID:                       "[]",
		"/ipfs/" + sampleCID:            "[]",
		"/ipld/" + sampleCID:            "[]",
		"/ipfs/" + sampleCID + "/":      "[]",
		sampleCID + "/a/b":              "[a b]",
		"/ipfs/" + sampleCID + "//a/":   "[a]",
		sampleCID + "/0/ /..":           "[0   ..]",
		"/" + sampleCID:                 "[]",
		"/ipfs/" + sampleCID + "/a%2Fb": "[a%2Fb]",
	} {
		p, err := parsePath(given)
		if err != nil || p.root.String() != sampleCID || fmt.Sprint(p.rest) != want {
			t.Errorf("%s: %s %v, %v", given, p.root, p.rest, err)
		}
	}
	for _, given := range []string{"", "/", "/ipfs/", "/ipns/" + sampleCID, "nonsense", "/ipfs/x/" + sampleCID, sampleCID + "x"} {
		if p, err := parsePath(given); err == nil || p.root.Defined() || !strings.Contains(err.Error(), fmt.Sprintf("invalid path %q", given)) {
			t.Errorf("%q: %v, %v", given, p, err)
		}
	}
}

func TestParsePeerArguments(t *testing.T) {
	const id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	for given, want := range map[string]string{
		id:                                "0",
		"/p2p/" + id:                      "0",
		"/ip4/127.0.0.1/tcp/1/p2p/" + id:  "1",
		"/ip4/127.0.0.1/tcp/1/ipfs/" + id: "1",
	} {
		info, err := parsePeerArgument(given)
		if err != nil || info.ID.String() != id || fmt.Sprint(len(info.Addrs)) != want {
			t.Errorf("%s: %v, %v", given, info, err)
		}
	}
	for _, given := range []string{"", "me", "/", "/ip4/127.0.0.1/tcp/1", "/p2p/", "/p2p/me"} {
		if info, err := parsePeerArgument(given); err == nil || info != nil {
			t.Errorf("%q: %v, %v", given, info, err)
		}
	}
	both, err := parsePeers([]string{"/ip4/127.0.0.1/tcp/1/p2p/" + id, "/ip4/127.0.0.1/tcp/2/p2p/" + id})
	if err != nil || len(both) != 1 || len(both[0].Addrs) != 2 {
		t.Errorf("two addresses of one peer: %v, %v", both, err)
	}
}
