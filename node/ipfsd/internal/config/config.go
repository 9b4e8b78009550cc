// Package config reads and writes Kubo's configuration file, as far as this daemon obeys it. Keys that it does
// not know are left alone, as Kubo leaves them: one file serves both.
package config

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"shoal/ipfsd/internal/transport"
)

// Config is what the daemon obeys of the file.
type Config struct {
	Identity struct {
		PeerID  string
		PrivKey string
	}
	Addresses struct {
		Swarm []string
		API   Strings
	}
	Datastore struct {
		StorageMax string
		Spec       json.RawMessage
	}
	Peering struct {
		Peers []Peer
	}
	Routing struct {
		Type string
	}
	Import Import
	Swarm  struct {
		DisableBandwidthMetrics bool
		ConnMgr                 struct {
			Type        string
			LowWater    *int
			HighWater   *int
			GracePeriod Duration
		}
	}
	Pubsub struct {
		Enabled bool
	}
	Experimental struct {
		Libp2pStreamMounting bool
	}
	Internal struct {
		ShutdownTimeout Duration
	}
	// Shoal is the one section that Kubo does not have, and ignores.
	Shoal struct {
		Transport string
	}

	key     crypto.PrivKey
	id      peer.ID
	listen  []ma.Multiaddr
	api     []ma.Multiaddr
	peers   []peer.AddrInfo
	profile transport.Profile
	storage int64
}

// Peer is one entry of Peering.Peers.
type Peer struct {
	ID    string
	Addrs []string
}

// Import says how add builds a DAG when the call does not say.
type Import struct {
	CidVersion         *int
	UnixFSRawLeaves    *bool
	UnixFSChunker      string
	UnixFSFileMaxLinks *int
}

// The parsed forms of what the file says; Load has checked them.
func (c *Config) Key() crypto.PrivKey          { return c.key }
func (c *Config) ID() peer.ID                  { return c.id }
func (c *Config) Listen() []ma.Multiaddr       { return c.listen }
func (c *Config) API() []ma.Multiaddr          { return c.api }
func (c *Config) Peers() []peer.AddrInfo       { return c.peers }
func (c *Config) Transport() transport.Profile { return c.profile }
func (c *Config) StorageMaxBytes() int64       { return c.storage }
func (c *Config) ShutdownTimeout() time.Duration {
	if c.Internal.ShutdownTimeout > 0 {
		return time.Duration(c.Internal.ShutdownTimeout)
	}
	return 10 * time.Second
}

// Error names the key that is wrong, where it stands, and what would be right.
type Error struct {
	Path string
	Line int
	Key  string
	Say  string
}

func (e *Error) Error() string {
	where := e.Path
	if e.Line > 0 {
		where = fmt.Sprintf("%s:%d", e.Path, e.Line)
	}
	if e.Key == "" {
		return fmt.Sprintf("%s: %s", where, e.Say)
	}
	return fmt.Sprintf("%s: %s: %s", where, e.Key, e.Say)
}

// Load reads the file and checks every key that the daemon obeys.
func Load(path string) (*Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data)
}

// Parse checks the text of a configuration file; path is for messages only.
func Parse(path string, data []byte) (*Config, error) {
	c := new(Config)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, explain(path, data, err)
	}
	if err := c.check(); err != nil {
		var wrong *Error
		if errors.As(err, &wrong) {
			wrong.Path, wrong.Line = path, lineOf(data, wrong.Key)
		}
		return nil, err
	}
	return c, nil
}

func explain(path string, data []byte, err error) error {
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return &Error{Path: path, Line: lineAt(data, syntax.Offset), Say: "no JSON: " + syntax.Error()}
	case errors.As(err, &kind):
		line := lineAt(data, kind.Offset)
		if kind.Offset == 0 { // one of ours, which knows only its own value
			line = lineOf(data, kind.Field)
		}
		return &Error{Path: path, Line: line, Key: kind.Field,
			Say: fmt.Sprintf("expected %s, got %s", kindName(kind.Type.String()), kind.Value)}
	}
	return &Error{Path: path, Say: err.Error()}
}

func kindName(goType string) string {
	switch goType {
	case "bool", "*bool":
		return "true or false"
	case "int", "*int":
		return "a number"
	case "string":
		return "a text"
	case "[]string":
		return "a list of texts"
	case "config.Strings":
		return "an address or a list of addresses"
	case "config.Duration":
		return `a duration such as "10s"`
	}
	return "an object"
}

func (c *Config) check() error {
	wrong := func(key, format string, values ...any) error {
		return &Error{Key: key, Say: fmt.Sprintf(format, values...)}
	}
	raw, err := base64.StdEncoding.DecodeString(c.Identity.PrivKey)
	if err != nil || len(raw) == 0 {
		return wrong("Identity.PrivKey", "expected a private key in base64; `ipfs init` writes one")
	}
	if c.key, err = crypto.UnmarshalPrivateKey(raw); err != nil {
		return wrong("Identity.PrivKey", "no libp2p private key: %v", err)
	}
	if c.id, err = peer.IDFromPrivateKey(c.key); err != nil {
		return wrong("Identity.PrivKey", "%v", err)
	}
	if c.Identity.PeerID != c.id.String() {
		return wrong("Identity.PeerID", "%q does not belong to Identity.PrivKey, whose peer ID is %s", c.Identity.PeerID, c.id)
	}
	for i, text := range c.Addresses.Swarm {
		address, err := ma.NewMultiaddr(text)
		if err != nil {
			return wrong(fmt.Sprintf("Addresses.Swarm[%d]", i), "%v", err)
		}
		if !transport.IsTCP(address) {
			return wrong(fmt.Sprintf("Addresses.Swarm[%d]", i), "%s: only TCP is spoken in a private swarm: /ip4/…/tcp/…", text)
		}
		c.listen = append(c.listen, address)
	}
	if len(c.Addresses.API) == 0 {
		return wrong("Addresses.API", "expected an address such as /ip4/127.0.0.1/tcp/5001")
	}
	for i, text := range c.Addresses.API {
		address, err := ma.NewMultiaddr(text)
		if err != nil || !transport.IsTCP(address) {
			key := "Addresses.API"
			if len(c.Addresses.API) > 1 {
				key = fmt.Sprintf("%s[%d]", key, i)
			}
			return wrong(key, "%q: expected an address such as /ip4/127.0.0.1/tcp/5001", text)
		}
		c.api = append(c.api, address)
	}
	for i, p := range c.Peering.Peers {
		key := fmt.Sprintf("Peering.Peers[%d]", i)
		id, err := peer.Decode(p.ID)
		if err != nil {
			return wrong(key+".ID", "%q is no peer ID: %v", p.ID, err)
		}
		info := peer.AddrInfo{ID: id}
		for j, text := range p.Addrs {
			address, err := ma.NewMultiaddr(text)
			if err != nil {
				return wrong(fmt.Sprintf("%s.Addrs[%d]", key, j), "%v", err)
			}
			info.Addrs = append(info.Addrs, address)
		}
		c.peers = append(c.peers, info)
	}
	if c.profile, err = transport.Named(c.Shoal.Transport); err != nil {
		return wrong("Shoal.Transport", "%v", err)
	}
	switch c.Swarm.ConnMgr.Type {
	case "", "basic", "none":
	default:
		return wrong("Swarm.ConnMgr.Type", "%q: expected basic or none", c.Swarm.ConnMgr.Type)
	}
	if c.Datastore.StorageMax == "" {
		c.Datastore.StorageMax = "10GB"
	}
	if c.storage, err = parseSize(c.Datastore.StorageMax); err != nil {
		return wrong("Datastore.StorageMax", "%v", err)
	}
	return c.checkSpec(wrong)
}

// checkSpec refuses a repository laid out in a way that this daemon cannot read, rather than reading another one.
func (c *Config) checkSpec(wrong func(string, string, ...any) error) error {
	if len(c.Datastore.Spec) == 0 {
		return nil
	}
	var ours, theirs any
	if err := json.Unmarshal(c.Datastore.Spec, &theirs); err != nil {
		return wrong("Datastore.Spec", "%v", err)
	}
	if err := json.Unmarshal([]byte(defaultSpec), &ours); err != nil {
		return err
	}
	a, errA := json.Marshal(withoutMeasure(theirs))
	b, errB := json.Marshal(ours)
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		return wrong("Datastore.Spec", "this daemon reads Kubo's default layout only (flatfs for /blocks, leveldb for the rest)")
	}
	return nil
}

// withoutMeasure takes away the wrappers that older Kubos put around each datastore; they do not change the layout.
func withoutMeasure(v any) any {
	switch v := v.(type) {
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = withoutMeasure(v[i])
		}
		return out
	case map[string]any:
		if child, ok := v["child"].(map[string]any); ok && v["type"] == "measure" {
			out := map[string]any{"prefix": v["prefix"], "mountpoint": v["mountpoint"]}
			for key, value := range child {
				out[key] = value
			}
			return out
		}
		out := map[string]any{}
		for key, value := range v {
			out[key] = withoutMeasure(value)
		}
		return out
	}
	return v
}

// Strings is a list that may be written as a single text.
type Strings []string

// UnmarshalJSON takes "x" and ["x", "y"].
func (s *Strings) UnmarshalJSON(data []byte) error {
	var one string
	if json.Unmarshal(data, &one) == nil {
		*s = nil
		if one != "" {
			*s = Strings{one}
		}
		return nil
	}
	var many []string
	if err := json.Unmarshal(data, &many); err != nil {
		return mistyped[Strings](data)
	}
	*s = many
	return nil
}

// Duration is written as Go writes it ("10s"); null and "default" mean the default.
type Duration time.Duration

// UnmarshalJSON takes "10s", null and "default".
func (d *Duration) UnmarshalJSON(data []byte) error {
	var text *string
	if err := json.Unmarshal(data, &text); err != nil {
		return mistyped[Duration](data)
	}
	if text == nil || *text == "default" || *text == "" {
		*d = 0
		return nil
	}
	value, err := time.ParseDuration(*text)
	if err != nil {
		return mistyped[Duration](data)
	}
	*d = Duration(value)
	return nil
}

// mistyped is an error of the kind to which encoding/json adds the key.
func mistyped[T any](data []byte) error {
	return &json.UnmarshalTypeError{Value: string(data), Type: reflect.TypeFor[T]()}
}
