package config

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
)

// defaultSpec is the layout of Kubo's default repository, flatfs for blocks and leveldb for the rest.
const defaultSpec = `{
  "mounts": [
    {"mountpoint": "/blocks", "path": "blocks", "prefix": "flatfs.datastore",
     "shardFunc": "/repo/flatfs/shard/v1/next-to-last/2", "sync": false, "type": "flatfs"},
    {"compression": "none", "mountpoint": "/", "path": "datastore", "prefix": "leveldb.datastore", "type": "levelds"}
  ],
  "type": "mount"
}`

type object = map[string]any

// profiles are Kubo's names for sets of settings; those that need what this daemon has not are not here.
var profiles = map[string]func(object){
	"autoconf-off": func(c object) {
		merge(c, object{
			"AutoConf": object{"Enabled": false}, "Bootstrap": []any{}, "DNS": object{"Resolvers": object{}},
			"Routing": object{"DelegatedRouters": []any{}}, "Ipns": object{"DelegatedPublishers": []any{}},
		})
	},
	"announce-off": func(c object) {
		merge(c, object{"Provide": object{"Enabled": false, "DHT": object{"Interval": "0s"}}})
	},
	"unixfs-v1-2025": func(c object) {
		merge(c, object{"Import": object{
			"CidVersion": 1, "HashFunction": "sha2-256", "UnixFSChunker": "size-1048576", "UnixFSRawLeaves": true,
			"UnixFSFileMaxLinks": 1024, "UnixFSDirectoryMaxLinks": 0, "UnixFSHAMTDirectoryMaxFanout": 256,
			"UnixFSHAMTDirectorySizeThreshold": "256KiB", "UnixFSHAMTDirectorySizeEstimation": "block",
		}})
	},
	"unixfs-v0-2015": func(c object) {
		merge(c, object{"Import": object{
			"CidVersion": 0, "HashFunction": "sha2-256", "UnixFSChunker": "size-262144", "UnixFSRawLeaves": false,
			"UnixFSFileMaxLinks": 174, "UnixFSDirectoryMaxLinks": 0, "UnixFSHAMTDirectoryMaxFanout": 256,
			"UnixFSHAMTDirectorySizeThreshold": "256KiB", "UnixFSHAMTDirectorySizeEstimation": "links",
		}})
	},
	"local-discovery":    func(object) {},
	"default-networking": func(object) {},
	"default-datastore":  func(object) {},
	"flatfs":             func(object) {},
	"test": func(c object) {
		merge(c, object{"Addresses": object{
			"API": "/ip4/127.0.0.1/tcp/0", "Gateway": []any{}, "Swarm": []any{"/ip4/127.0.0.1/tcp/0"},
		}, "Bootstrap": []any{}, "Swarm": object{"DisableNatPortMap": true}})
	},
	"randomports": func(c object) {
		port, err := rand.Int(rand.Reader, big.NewInt(1<<15-1024))
		if err == nil {
			merge(c, object{"Addresses": object{"Swarm": []any{fmt.Sprintf("/ip4/0.0.0.0/tcp/%d", 1<<15+port.Int64())}}})
		}
	},
}

// Init makes the text of a new configuration with an identity of its own, under Kubo's profiles.
func Init(names []string) ([]byte, peer.ID, error) {
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	raw, err := crypto.MarshalPrivateKey(key)
	if err != nil {
		return nil, "", err
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return nil, "", err
	}
	c := defaults()
	c["Identity"] = object{"PeerID": id.String(), "PrivKey": base64.StdEncoding.EncodeToString(raw)}
	for _, name := range names {
		apply, known := profiles[name]
		if !known {
			return nil, "", fmt.Errorf("no profile is called %q; there are %s", name, strings.Join(ProfileNames(), ", "))
		}
		apply(c)
	}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return nil, "", err
	}
	return append(text, '\n'), id, nil
}

// ProfileNames are the profiles that Init takes.
func ProfileNames() []string {
	names := make([]string, 0, len(profiles))
	for name := range profiles {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// DatastoreSpec is the text of the file datastore_spec: the layout without what may change later.
func DatastoreSpec() []byte {
	return []byte(`{"mounts":[{"mountpoint":"/blocks","path":"blocks","shardFunc":"/repo/flatfs/shard/v1/next-to-last/2","type":"flatfs"},{"mountpoint":"/","path":"datastore","type":"levelds"}],"type":"mount"}`)
}

// defaults is Kubo's default configuration without the public network: this daemon lives in private swarms.
func defaults() object {
	return object{
		"Addresses": object{
			"API": "/ip4/127.0.0.1/tcp/5001", "Gateway": []any{}, "Announce": []any{}, "AppendAnnounce": []any{},
			"NoAnnounce": []any{}, "Swarm": []any{"/ip4/0.0.0.0/tcp/4001"},
		},
		"AutoConf":  object{},
		"AutoNAT":   object{},
		"AutoTLS":   object{"Enabled": false},
		"Bootstrap": []any{},
		"DNS":       object{"Resolvers": object{}},
		"Datastore": object{
			"BloomFilterSize": 0, "GCPeriod": "1h", "HashOnRead": true, "Spec": json.RawMessage(defaultSpec),
			"StorageGCWatermark": 90, "StorageMax": "10GB",
		},
		"Discovery":    object{"MDNS": object{"Enabled": false}},
		"Experimental": object{"Libp2pStreamMounting": false, "P2pHttpProxy": false},
		"Import":       object{},
		"Internal":     object{},
		"Ipns":         object{"ResolveCacheSize": 128},
		"Peering":      object{"Peers": nil},
		"Pinning":      object{"RemoteServices": object{}},
		"Plugins":      object{"Plugins": object{}},
		"Provide":      object{},
		"Pubsub":       object{"DisableSigning": false, "Router": ""},
		"Routing":      object{"Type": "none"},
		"Swarm": object{
			"ConnMgr": object{}, "DisableBandwidthMetrics": false, "DisableNatPortMap": true,
			"RelayClient": object{"Enabled": false}, "RelayService": object{"Enabled": false},
			"ResourceMgr": object{},
			"Transports": object{"Network": object{
				"QUIC": false, "Relay": false, "WebRTCDirect": false, "WebTransport": false, "Websocket": false,
			}},
		},
		"Version": object{"SwarmCheckEnabled": false},
	}
}

// merge lays new over into, object by object.
func merge(into, new object) {
	for key, value := range new {
		inner, isObject := value.(object)
		if old, ok := into[key].(object); ok && isObject {
			merge(old, inner)
			continue
		}
		into[key] = value
	}
}
