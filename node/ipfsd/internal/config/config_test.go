package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"
)

// fixed is a whole configuration with an identity that never changes.
func fixed(t testing.TB) string {
	t.Helper()
	text, _, err := Init(nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// with puts other JSON in place of a key's value; the key is named as Peering.Peers, without indices.
func with(t testing.TB, text, key, value string) string {
	t.Helper()
	var root map[string]any
	if err := json.Unmarshal([]byte(text), &root); err != nil {
		t.Fatal(err)
	}
	words := strings.Split(key, ".")
	at := root
	for _, word := range words[:len(words)-1] {
		inner, ok := at[word].(object)
		if !ok {
			inner = object{}
			at[word] = inner
		}
		at = inner
	}
	at[words[len(words)-1]] = json.RawMessage(value)
	out, err := json.MarshalIndent(root, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("config", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c := mustParse(t, fixed(t))
	for _, row := range []struct {
		what      string
		got, want any
	}{
		{"transport", c.Transport().Name, "prompt"},
		{"StorageMax", c.StorageMaxBytes(), int64(10e9)},
		{"ShutdownTimeout", c.ShutdownTimeout(), 10 * time.Second},
		{"API", fmt.Sprint(c.API()), "[/ip4/127.0.0.1/tcp/5001]"},
		{"Swarm", fmt.Sprint(c.Listen()), "[/ip4/0.0.0.0/tcp/4001]"},
		{"peers", len(c.Peers()), 0},
		{"Routing", c.Routing.Type, "none"},
		{"pubsub", c.Pubsub.Enabled, false},
		{"tunnels", c.Experimental.Libp2pStreamMounting, false},
		{"PeerID", c.ID().String(), c.Identity.PeerID},
		{"key", c.ID().MatchesPrivateKey(c.Key()), true},
	} {
		if row.got != row.want {
			t.Errorf("%s: got %v, want %v", row.what, row.got, row.want)
		}
	}
}

func TestEachIdentityIsNew(t *testing.T) {
	if a, b := mustParse(t, fixed(t)), mustParse(t, fixed(t)); a.ID() == b.ID() {
		t.Fatal("two repositories have the identity", a.ID())
	}
}

func TestProfiles(t *testing.T) {
	tests := map[string]map[string]string{ // profile: key: JSON
		"autoconf-off":       {"AutoConf.Enabled": "false", "Bootstrap": "[]", "Routing.Type": `"none"`, "Routing.DelegatedRouters": "[]"},
		"announce-off":       {"Provide.Enabled": "false", "Provide.DHT.Interval": `"0s"`},
		"unixfs-v1-2025":     {"Import.CidVersion": "1", "Import.UnixFSRawLeaves": "true", "Import.UnixFSChunker": `"size-1048576"`, "Import.UnixFSFileMaxLinks": "1024"},
		"unixfs-v0-2015":     {"Import.CidVersion": "0", "Import.UnixFSRawLeaves": "false", "Import.UnixFSChunker": `"size-262144"`, "Import.UnixFSFileMaxLinks": "174"},
		"local-discovery":    {"Addresses.API": `"/ip4/127.0.0.1/tcp/5001"`},
		"default-networking": {"Addresses.API": `"/ip4/127.0.0.1/tcp/5001"`},
		"default-datastore":  {"Datastore.StorageMax": `"10GB"`},
		"flatfs":             {"Datastore.StorageMax": `"10GB"`},
		"test":               {"Addresses.API": `"/ip4/127.0.0.1/tcp/0"`, "Addresses.Swarm": `["/ip4/127.0.0.1/tcp/0"]`, "Datastore.StorageMax": `"10GB"`},
		"randomports":        {"Addresses.API": `"/ip4/127.0.0.1/tcp/5001"`},
	}
	for _, name := range ProfileNames() {
		t.Run(name, func(t *testing.T) {
			want, known := tests[name]
			if !known {
				t.Fatal("this profile has no test")
			}
			text, id, err := Init([]string{name})
			if err != nil {
				t.Fatal(err)
			}
			if c := mustParse(t, string(text)); c.ID() != id {
				t.Errorf("Init says %s, the text %s", id, c.ID())
			}
			for key, value := range want {
				if got := lookUp(t, text, key); got != value {
					t.Errorf("%s: got %s, want %s", key, got, value)
				}
			}
		})
	}
}

func lookUp(t *testing.T, text []byte, key string) string {
	t.Helper()
	var at any
	if err := json.Unmarshal(text, &at); err != nil {
		t.Fatal(err)
	}
	for word := range strings.SplitSeq(key, ".") {
		inner, _ := at.(map[string]any)
		at = inner[word]
	}
	out, err := json.Marshal(at)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestProfilesAddUp(t *testing.T) {
	text, _, err := Init([]string{"unixfs-v0-2015", "test", "unixfs-v1-2025"})
	if err != nil {
		t.Fatal(err)
	}
	if got := lookUp(t, text, "Import.CidVersion"); got != "1" {
		t.Errorf("the later profile must win: CidVersion is %s", got)
	}
	if got := lookUp(t, text, "Addresses.API"); got != `"/ip4/127.0.0.1/tcp/0"` {
		t.Errorf("the profile test is lost: %s", got)
	}
}

func TestRandomPorts(t *testing.T) {
	seen := map[string]bool{}
	for range 8 {
		text, _, err := Init([]string{"randomports"})
		if err != nil {
			t.Fatal(err)
		}
		port, err := mustParse(t, string(text)).Listen()[0].ValueForProtocol(ma.P_TCP)
		if err != nil || len(port) != 5 || port < "32768" || port >= "64512" {
			t.Fatalf("port %q, %v", port, err)
		}
		seen[port] = true
	}
	if len(seen) < 2 {
		t.Error("eight times the same port:", seen)
	}
}

func TestUnknownProfile(t *testing.T) {
	_, _, err := Init([]string{"test", "fast"})
	if err == nil || !strings.Contains(err.Error(), `"fast"`) || !strings.Contains(err.Error(), "unixfs-v1-2025") {
		t.Fatal("the message must name the profile and those there are:", err)
	}
}

func TestParseAccepts(t *testing.T) {
	base := fixed(t)
	for name, row := range map[string]struct {
		key, value string
		holds      func(*Config) bool
	}{
		"several API addresses": {"Addresses.API", `["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/2"]`, func(c *Config) bool { return len(c.API()) == 2 }},
		"no swarm address":      {"Addresses.Swarm", `[]`, func(c *Config) bool { return len(c.Listen()) == 0 }},
		"peers":                 {"Peering.Peers", `[{"ID": "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", "Addrs": ["/ip4/10.0.0.1/tcp/4001"]}]`, func(c *Config) bool { return len(c.Peers()) == 1 && len(c.Peers()[0].Addrs) == 1 }},
		"a profile":             {"Shoal.Transport", `"patient"`, func(c *Config) bool { return c.Transport().Name == "patient" }},
		"a duration":            {"Internal.ShutdownTimeout", `"3s"`, func(c *Config) bool { return c.ShutdownTimeout() == 3*time.Second }},
		"default as a duration": {"Internal.ShutdownTimeout", `"default"`, func(c *Config) bool { return c.ShutdownTimeout() == 10*time.Second }},
		"null as a duration":    {"Internal.ShutdownTimeout", `null`, func(c *Config) bool { return c.ShutdownTimeout() == 10*time.Second }},
		"keys of others":        {"Gateway.Writable", `{"deep": [1]}`, func(*Config) bool { return true }},
		"no StorageMax":         {"Datastore.StorageMax", `""`, func(c *Config) bool { return c.StorageMaxBytes() == 10e9 }},
		"other routing":         {"Routing.Type", `"auto"`, func(c *Config) bool { return c.Routing.Type == "auto" }},
	} {
		t.Run(name, func(t *testing.T) {
			if c := mustParse(t, with(t, base, row.key, row.value)); !row.holds(c) {
				t.Errorf("%s = %s was not obeyed", row.key, row.value)
			}
		})
	}
}

// TestErrors demands of every message the file, the key, and the line of what is wrong.
func TestErrors(t *testing.T) {
	base := fixed(t)
	other := mustParse(t, fixed(t))
	tests := []struct{ name, key, value, names, line, says string }{
		// names: the key in the message; line: a text on the line that the message must name
		{"peer of another key", "Identity.PeerID", fmt.Sprintf("%q", other.ID()), "Identity.PeerID", other.ID().String(), "does not belong"},
		{"no private key", "Identity.PrivKey", `""`, "Identity.PrivKey", `"PrivKey": ""`, "ipfs init"},
		{"key in no base64", "Identity.PrivKey", `"???"`, "Identity.PrivKey", "???", "base64"},
		{"no key at all", "Identity.PrivKey", fmt.Sprintf("%q", base64.StdEncoding.EncodeToString([]byte("no key"))), "Identity.PrivKey", "PrivKey", "libp2p private key"},
		{"identity missing", "Identity", `{}`, "Identity.PrivKey", `"Identity": {}`, "ipfs init"},
		{"swarm address", "Addresses.Swarm", `["/ip4/0.0.0.0/tcp/1", "/ip4/nonsense"]`, "Addresses.Swarm[1]", "/ip4/nonsense", "nonsense"},
		{"swarm over QUIC", "Addresses.Swarm", `["/ip4/0.0.0.0/udp/4001/quic-v1"]`, "Addresses.Swarm[0]", "quic-v1", "only TCP"},
		{"swarm no list", "Addresses.Swarm", `"/ip4/0.0.0.0/tcp/1"`, "Addresses.Swarm", `"Swarm": "/ip4`, "list of texts"},
		{"swarm with a number", "Addresses.Swarm", `[17]`, "Addresses.Swarm", "17", "a text"},
		{"API missing", "Addresses.API", `""`, "Addresses.API", `"API": ""`, "/ip4/127.0.0.1/tcp/5001"},
		{"API no address", "Addresses.API", `"localhost:5001"`, "Addresses.API", "localhost:5001", "/ip4/127.0.0.1/tcp/5001"},
		{"API a number", "Addresses.API", `5001`, "Addresses.API", `"API": 5001`, "list of addresses"},
		{"API over UDP", "Addresses.API", `["/ip4/127.0.0.1/tcp/1", "/ip4/127.0.0.1/udp/5001"]`, "Addresses.API[1]", "/udp/5001", "/ip4/127.0.0.1/tcp/5001"},
		{"peer ID", "Peering.Peers", `[{"ID": "me"}]`, "Peering.Peers[0].ID", `"me"`, "no peer ID"},
		{"peer address", "Peering.Peers", `[{"ID": "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", "Addrs": ["/ip4/1.2.3.4/tcp/1", "/bad"]}]`, "Peering.Peers[0].Addrs[1]", `"/bad"`, "bad"},
		{"transport", "Shoal.Transport", `"fast"`, "Shoal.Transport", `"fast"`, "prompt, stock and patient"},
		{"connection manager", "Swarm.ConnMgr.Type", `"clever"`, "Swarm.ConnMgr.Type", `"clever"`, "basic or none"},
		{"water mark", "Swarm.ConnMgr.HighWater", `"many"`, "Swarm.ConnMgr.HighWater", `"many"`, "a number"},
		{"grace period", "Swarm.ConnMgr.GracePeriod", `"soon"`, "Swarm.ConnMgr.GracePeriod", `"soon"`, `"10s"`},
		{"timeout a number", "Internal.ShutdownTimeout", `12`, "Internal.ShutdownTimeout", `"ShutdownTimeout": 12`, `"10s"`},
		{"flag", "Pubsub.Enabled", `"yes"`, "Pubsub.Enabled", `"yes"`, "true or false"},
		{"size", "Datastore.StorageMax", `"much"`, "Datastore.StorageMax", `"much"`, "10GB"},
		{"section", "Routing", `[]`, "Routing", `"Routing": []`, "an object"},
		{"other datastore", "Datastore.Spec", `{"type": "badgerds"}`, "Datastore.Spec", `"Spec": {`, "default layout"},
	}
	for _, row := range tests {
		t.Run(row.name, func(t *testing.T) {
			text := with(t, base, row.key, row.value)
			c, err := Parse("/some/config", []byte(text))
			if err == nil || c != nil {
				t.Fatalf("taken: %v", err)
			}
			before, _, found := strings.Cut(text, row.line)
			if !found {
				t.Fatalf("the test is wrong: %q is nowhere", row.line)
			}
			want := fmt.Sprintf("/some/config:%d: %s: ", 1+strings.Count(before, "\n"), row.names)
			if !strings.HasPrefix(err.Error(), want) || !strings.Contains(err.Error(), row.says) {
				t.Errorf("got  %s\nwant %s…%s…", err, want, row.says)
			}
		})
	}
}

func TestNoJSON(t *testing.T) {
	for text, line := range map[string]int{"": 1, "{\n\"a\": }": 2, "{\n\n\n]": 4, "{}\n{}": 2} {
		_, err := Parse("config", []byte(text))
		if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("config:%d: no JSON: ", line)) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestLoadNamesAMissingFile(t *testing.T) {
	if _, err := Load(t.TempDir() + "/config"); err == nil || !strings.Contains(err.Error(), "/config") {
		t.Fatal(err)
	}
}

func TestDatastoreSpec(t *testing.T) {
	base := fixed(t)
	flatfs := `"path": "blocks", "shardFunc": "/repo/flatfs/shard/v1/next-to-last/2", "sync": false, "type": "flatfs"`
	level := `"compression": "none", "path": "datastore", "type": "levelds"`
	wrapped := `{"mounts": [
		{"child": {` + flatfs + `}, "mountpoint": "/blocks", "prefix": "flatfs.datastore", "type": "measure"},
		{"child": {` + level + `}, "mountpoint": "/", "prefix": "leveldb.datastore", "type": "measure"}], "type": "mount"}`
	for name, row := range map[string]struct {
		spec string
		good bool
	}{
		"ours":             {defaultSpec, true},
		"wrapped":          {wrapped, true},
		"other shards":     {strings.Replace(defaultSpec, "next-to-last/2", "next-to-last/3", 1), false},
		"other folder":     {strings.Replace(wrapped, `"path": "blocks"`, `"path": "elsewhere"`, 1), false},
		"other order":      {strings.Replace(defaultSpec, `"/blocks"`, `"/pins"`, 1), false},
		"pebble":           {`{"path": "pebbleds", "type": "pebbleds"}`, false},
		"a measured other": {`{"child": {"path": "badgerds", "type": "badgerds"}, "prefix": "badger.datastore", "type": "measure"}`, false},
		"a text":           {`"flatfs"`, false},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse("config", []byte(with(t, base, "Datastore.Spec", row.spec)))
			if (err == nil) != row.good {
				t.Error(err)
			}
		})
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "10": 10, "10B": 10, "1KB": 1000, "1 kb": 1000, "1KiB": 1024, "10GB": 10e9, " 512 MiB ": 512 << 20,
		"1.5GB": 15e8, "2tib": 2 << 40, "3TB": 3e12, "0.5KiB": 512,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "B", "GB", "ten", "-1", "-1GB", "10 G", "10XB", "1e30", "NaN", "Inf", "infB", "1GBGB", "10 GB GB"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q was taken for %d", text, got)
		}
	}
}

func FuzzParseSize(f *testing.F) {
	for _, seed := range []string{"10GB", "1.5 MiB", "-1", "nan", "1e18", "B", "0x1p3", "9223372036854775807"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		size, err := parseSize(text)
		if err != nil {
			if size != 0 {
				t.Fatalf("%q: both a size and an error", text)
			}
			return
		}
		if size < 0 {
			t.Fatalf("%q: %d", text, size)
		}
		if again, err := parseSize(" " + strings.ToUpper(text) + "\t"); err != nil || again != size {
			t.Fatalf("%q: case and space make a difference: %d, %d, %v", text, size, again, err)
		}
		if size < 1<<53 { // beyond, a float cannot hold every number
			if again, err := parseSize(fmt.Sprintf("%dB", size)); err != nil || again != size {
				t.Fatalf("%d bytes became %d, %v", size, again, err)
			}
		}
	})
}

var named = regexp.MustCompile(`^config:(\d+): `)

func FuzzParse(f *testing.F) {
	text, _, err := Init([]string{"test", "unixfs-v1-2025"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"Identity": {"PrivKey": "CAE="}, "Addresses": {"API": [1], "Swarm": [null]}}`))
	f.Add([]byte(`{"Internal": {"ShutdownTimeout": "x"}, "Peering": {"Peers": [{"ID": 1}]}}`))
	f.Add([]byte("{\"Datastore\": {\"Spec\": [\n{}]}}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("config", data)
		if (err == nil) == (c == nil) {
			t.Fatalf("error %v and value %v", err, c)
		}
		if err == nil {
			if len(c.API()) == 0 || c.StorageMaxBytes() < 0 || c.Transport().Name == "" || !c.ID().MatchesPrivateKey(c.Key()) {
				t.Fatalf("a configuration that nobody can obey was taken: %s", data)
			}
			return
		}
		match := named.FindStringSubmatch(err.Error())
		var line int
		if match == nil {
			t.Fatalf("no line in %q", err)
		}
		if _, scanned := fmt.Sscan(match[1], &line); scanned != nil || line < 1 || line > 1+bytes.Count(data, []byte("\n")) {
			t.Fatalf("%q names a line that is not there", err)
		}
	})
}
