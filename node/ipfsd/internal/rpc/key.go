package rpc

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ipfs/boxo/keystore"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multibase"
)

const (
	selfKey = "self"
	// signedPrefix keeps a signature made here from meaning anything elsewhere in libp2p.
	signedPrefix = "libp2p-key signed message:"
	maxSigned    = 16 << 20
	rsaBits      = 2048
)

var keyCommands = map[string]command{
	"key/list": {run: keyList, options: []option{opt(flag, "l"), opt(text, "ipns-base")}},
	"key/gen":  {minArgs: 1, maxArgs: 1, run: keyGenerate, options: []option{opt(text, "type", "t"), opt(number, "size", "s"), opt(text, "ipns-base")}},
	"key/rm":   {minArgs: 1, maxArgs: many, run: keyRemove, options: []option{opt(flag, "l"), opt(text, "ipns-base")}},
	"key/sign": {body: body{"data", maxSigned}, run: keySign, options: []option{opt(text, "key", "k"), opt(text, "ipns-base")}},
	"key/verify": {body: body{"data", maxSigned}, run: keyVerify, options: []option{
		opt(text, "key", "k"), opt(text, "signature", "s"), opt(text, "ipns-base"),
	}},
}

type keyRow struct{ Name, Id string } //nolint:revive // Id is Kubo's spelling

type keysReply struct{ Keys []keyRow }

func describeKey(name string, id peer.ID) (keyRow, error) {
	text, err := peer.ToCid(id).StringOfBase(multibase.Base36)
	return keyRow{name, text}, err
}

func describePrivate(name string, key crypto.PrivKey) (keyRow, error) {
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		return keyRow{}, err
	}
	return describeKey(name, id)
}

// privateKey is the key of that name; self is the node's identity.
func (c *call) privateKey(name string) (crypto.PrivKey, error) {
	if name == "" || name == selfKey {
		return c.node.Repo.Config.Key(), nil
	}
	key, err := c.node.Repo.Keys.Get(name)
	if errors.Is(err, keystore.ErrNoSuchKey) {
		return nil, fmt.Errorf("no key named %s was found", name)
	}
	return key, err
}

func keyList(c *call) error {
	names, err := c.node.Repo.Keys.List()
	if err != nil {
		return err
	}
	slices.Sort(names)
	reply := keysReply{}
	for _, name := range append([]string{selfKey}, names...) {
		key, err := c.privateKey(name)
		if err != nil {
			return err
		}
		row, err := describePrivate(name, key)
		if err != nil {
			return err
		}
		reply.Keys = append(reply.Keys, row)
	}
	return c.emit(reply)
}

func keyGenerate(c *call) error {
	name := c.args[0]
	if name == selfKey {
		return errors.New("cannot create key with name 'self'")
	}
	known, err := c.node.Repo.Keys.Has(name)
	if err != nil {
		return err
	}
	if known {
		return fmt.Errorf("key with name '%s' already exists", name)
	}
	var key crypto.PrivKey
	switch kind := get(c, "type", "ed25519"); kind {
	case "ed25519":
		key, _, err = crypto.GenerateEd25519Key(rand.Reader)
	case "rsa":
		key, _, err = crypto.GenerateRSAKeyPair(int(get(c, "size", int64(rsaBits))), rand.Reader)
	default:
		return fmt.Errorf("unrecognized key type: %s", kind)
	}
	if err != nil {
		return err
	}
	row, err := describePrivate(name, key)
	if err != nil {
		return err
	}
	if err := c.node.Repo.Keys.Put(name, key); err != nil {
		return err
	}
	return c.emit(row)
}

func keyRemove(c *call) error {
	if slices.Contains(c.args, selfKey) {
		return errors.New("cannot remove key with name 'self'")
	}
	reply := keysReply{}
	for _, name := range c.args {
		key, err := c.privateKey(name)
		if err != nil {
			return err
		}
		row, err := describePrivate(name, key)
		if err != nil {
			return err
		}
		reply.Keys = append(reply.Keys, row)
	}
	for _, name := range c.args {
		if err := c.node.Repo.Keys.Delete(name); err != nil {
			return err
		}
	}
	return c.emit(reply)
}

func keySign(c *call) error {
	name := get(c, "key", selfKey)
	key, err := c.privateKey(name)
	if err != nil {
		return err
	}
	data, err := c.data()
	if err != nil {
		return err
	}
	signature, err := key.Sign(append([]byte(signedPrefix), data...))
	if err != nil {
		return err
	}
	encoded, err := multibase.Encode(multibase.Base64url, signature)
	if err != nil {
		return err
	}
	row, err := describePrivate(name, key)
	if err != nil {
		return err
	}
	return c.emit(struct {
		Key       keyRow
		Signature string
	}{row, encoded})
}

func keyVerify(c *call) error {
	name := get(c, "key", selfKey)
	public, row, err := c.publicKey(name)
	if err != nil {
		return err
	}
	_, signature, err := multibase.Decode(c.text("signature"))
	if err != nil {
		return fmt.Errorf("failed to decode signature: %w", err)
	}
	data, err := c.data()
	if err != nil {
		return err
	}
	valid, err := public.Verify(append([]byte(signedPrefix), data...), signature)
	// A signature that cannot even be one is no error of the caller's: it is simply not valid.
	return c.emit(struct {
		Key            keyRow
		SignatureValid bool
	}{row, valid && err == nil})
}

// publicKey takes the name of a key, or the ID of any peer whose ID holds its key.
func (c *call) publicKey(name string) (crypto.PubKey, keyRow, error) {
	if key, err := c.privateKey(name); err == nil {
		row, err := describePrivate(name, key)
		return key.GetPublic(), row, err
	}
	id, err := peer.Decode(strings.TrimPrefix(strings.TrimPrefix(name, "/ipns/"), "/p2p/"))
	if err != nil {
		return nil, keyRow{}, fmt.Errorf("no key named %s was found, and it is no peer ID: %w", name, err)
	}
	public, err := id.ExtractPublicKey()
	if err != nil {
		return nil, keyRow{}, fmt.Errorf("%s does not hold its public key: %w", name, err)
	}
	row, err := describeKey("", id)
	return public, row, err
}
