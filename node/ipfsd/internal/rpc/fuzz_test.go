package rpc

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multibase"
	"github.com/multiformats/go-multicodec"

	"shoal/ipfsd/internal/nodetest"
)

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"arg=a", "arg=a&q=true&n=3", "arg=a&timeout=1h&foo", "arg=%zz", "arg=a;b", "arg=a&every=-1s", "&&=&arg", "arg=a&count=+1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		args, values, unknown, err := parseQuery(sample, query)
		if err != nil {
			var refused *refusal
			if !errors.As(err, &refused) || refused.status != http.StatusBadRequest || refused.say == "" || args != nil || values != nil || unknown != nil {
				t.Fatalf("%q: %v with %v %v %v", query, err, args, values, unknown)
			}
			return
		}
		if len(args) < sample.minArgs || len(args) > sample.maxArgs {
			t.Fatalf("%q: %d arguments", query, len(args))
		}
		words, err := url.ParseQuery(query)
		if err != nil {
			t.Fatalf("%q was taken and is no query: %v", query, err)
		}
		if distinct := len(words) - 1; len(values)+len(unknown) != distinct {
			t.Fatalf("%q: %d known and %d unknown of %d options", query, len(values), len(unknown), distinct)
		}
		for name, value := range values {
			known, found := sample.option(name)
			want := map[kind]reflect.Kind{flag: reflect.Bool, number: reflect.Int64, text: reflect.String, duration: reflect.Int64}
			if !found || known.names[0] != name || reflect.TypeOf(value).Kind() != want[known.kind] {
				t.Fatalf("%q: %s = %T", query, name, value)
			}
		}
		again, valuesAgain, unknownAgain, err := parseQuery(sample, words.Encode())
		slices.Sort(unknown)
		slices.Sort(unknownAgain)
		if err != nil || !slices.Equal(again, args) || !reflect.DeepEqual(valuesAgain, values) || !slices.Equal(unknownAgain, unknown) {
			t.Fatalf("%q, written again, means something else: %v", query, err)
		}
	})
}

func FuzzPath(f *testing.F) {
	for _, seed := range []string{sampleCID, "/ipfs/" + sampleCID + "/a/b", "/ipld//x", "QmUNLLsPACCz1vLxQVkXqqLX5R1X345qqfHbsf67hvA3Nn/", "/ipfs/ipfs/x", "bafkqaaa"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		p, err := parsePath(given)
		if (err == nil) != p.root.Defined() {
			t.Fatalf("%q: both or neither of %s and %v", given, p.root, err)
		}
		if err != nil {
			return
		}
		for _, name := range p.rest {
			if name == "" || strings.Contains(name, "/") {
				t.Fatalf("%q has the step %q", given, name)
			}
		}
		canonical := strings.Join(append([]string{"/ipfs", p.root.String()}, p.rest...), "/")
		again, err := parsePath(canonical)
		if err != nil || !again.root.Equals(p.root) || !slices.Equal(again.rest, p.rest) {
			t.Fatalf("%q: %q does not read back as itself: %v, %v", given, canonical, again, err)
		}
	})
}

func FuzzPeerArgument(f *testing.F) {
	const id = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	for _, seed := range []string{id, "/p2p/" + id, "/ip4/1.2.3.4/tcp/5/p2p/" + id, "/dns4/x/tcp/1/p2p/" + id + "/p2p-circuit/p2p/" + id, "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", "/p2p"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		info, err := parsePeerArgument(given)
		if (err == nil) == (info == nil) {
			t.Fatalf("%q: both or neither of %v and %v", given, info, err)
		}
		if infos, err := parsePeers([]string{given}); err == nil && (len(infos) != 1 || infos[0].String() != info.String()) {
			t.Fatalf("%q: %v as one of a list, %v alone", given, infos, info)
		}
		if err != nil {
			return
		}
		if info.ID.Validate() != nil || len(info.Addrs) > 1 {
			t.Fatalf("%q: %v", given, info)
		}
		addresses, err := peer.AddrInfoToP2pAddrs(info)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parsePeerArgument(addresses[0].String())
		if err != nil || again.String() != info.String() {
			t.Fatalf("%q: %s does not read back as itself: %v, %v", given, addresses[0], again, err)
		}
	})
}

func FuzzTopic(f *testing.F) {
	for _, seed := range []string{"uAA", "udG9waWM", "mdG9waWM", "f746f706963", "", "u", "\x00abc", "Z1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, given string) {
		topic, err := parseTopic(given)
		if err != nil {
			if topic != "" || !strings.Contains(err.Error(), "multibase") {
				t.Fatalf("%q: %q and %v", given, topic, err)
			}
			return
		}
		encoded, err := inMultibase([]byte(topic))
		if err != nil {
			t.Fatal(err)
		}
		if again, err := parseTopic(encoded); err != nil || again != topic {
			t.Fatalf("%q: %q, and then %q, %v", given, topic, again, err)
		}
	})
}

// FuzzTranscode: what dag/put stores is canonical and says the same as what was sent.
func FuzzTranscode(f *testing.F) {
	for _, seed := range []string{
		`{"b":1,"a":[null,true,"x",1.5]}`, `{"/":"` + sampleCID + `"}`, `{"/":{"bytes":"AAEC"}}`, `[[[[]]]]`, `-9007199254740993`,
		`18446744073709551615`, `{"a":1,"a":2}`, `"` + "\xff" + `"`, `1e400`, `0e0`, ` {} `, `{"/":1}`, strings.Repeat("[", 2000),
	} {
		f.Add([]byte(seed))
	}
	asJSON, asCBOR := formats[multicodec.DagJson], formats[multicodec.DagCbor]
	f.Fuzz(func(t *testing.T, given []byte) {
		stored, err := transcode(given, asJSON, asCBOR)
		if err != nil {
			if stored != nil {
				t.Fatalf("%q: both %x and %v", given, stored, err)
			}
			return
		}
		again, err := transcode(stored, asCBOR, asCBOR)
		if err != nil || !bytes.Equal(again, stored) {
			t.Fatalf("%q: not canonical: %x became %x, %v", given, stored, again, err)
		}
		shown, err := transcode(stored, asCBOR, asJSON)
		if err != nil {
			t.Fatalf("%q was stored and cannot be shown: %v", given, err)
		}
		if hasFloat(t, stored) { // the library, and so Kubo, shows 0.0 as 0
			return
		}
		if back, err := transcode(shown, asJSON, asCBOR); err != nil || !bytes.Equal(back, stored) {
			t.Fatalf("%q, shown as %q, is another block: %x became %x, %v", given, shown, stored, back, err)
		}
	})
}

func hasFloat(t *testing.T, stored []byte) bool {
	t.Helper()
	value, err := decode(stored, formats[multicodec.DagCbor])
	if err != nil {
		t.Fatal(err)
	}
	return containsFloat(t, value)
}

func containsFloat(t *testing.T, value datamodel.Node) bool {
	t.Helper()
	switch value.Kind() {
	case datamodel.Kind_Float:
		return true
	case datamodel.Kind_List:
		for items := value.ListIterator(); !items.Done(); {
			_, item, err := items.Next()
			if err != nil {
				t.Fatal(err)
			}
			if containsFloat(t, item) {
				return true
			}
		}
	case datamodel.Kind_Map:
		for entries := value.MapIterator(); !entries.Done(); {
			_, entry, err := entries.Next()
			if err != nil {
				t.Fatal(err)
			}
			if containsFloat(t, entry) {
				return true
			}
		}
	}
	return false
}

// FuzzStoredNode is for blocks that a peer made: showing them may fail, but never end the daemon.
func FuzzStoredNode(f *testing.F) {
	f.Add([]byte{0xa1, 0x61, 'a', 0x01}, true)
	f.Add(bytes.Repeat([]byte{0x81}, 3000), true)
	f.Add([]byte{0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, true)
	f.Add([]byte{0x0a, 0x02, 0x08, 0x01}, false)
	f.Fuzz(func(t *testing.T, block []byte, isCBOR bool) {
		from := formats[multicodec.DagPb]
		if isCBOR {
			from = formats[multicodec.DagCbor]
		}
		shown, err := transcode(block, from, formats[multicodec.DagJson])
		if (err == nil) == (shown == nil) {
			t.Fatalf("%x: both or neither of %q and %v", block, shown, err)
		}
		if err == nil && !json.Valid(shown) {
			t.Fatalf("%x is shown as %q", block, shown)
		}
	})
}

// ask puts a request to a real node without a network between.
func ask(s *Server, path, contentType string, body []byte) *httptest.ResponseRecorder {
	request := httptest.NewRequest(http.MethodPost, apiPrefix+path, bytes.NewReader(body))
	request.Header.Set("Content-Type", contentType)
	recorder := httptest.NewRecorder()
	s.http.Handler.ServeHTTP(recorder, request)
	return recorder
}

func FuzzAdd(f *testing.F) {
	server := New(nodetest.New(f).Node, func() {})
	const boundary = "multipart/form-data; boundary=b"
	for _, seed := range []string{
		"--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\nhello\r\n--b--\r\n",
		"--b\r\nContent-Disposition: form-data; name=file; filename=d%2Fa\r\nContent-Type: application/octet-stream\r\n\r\nx\r\n--b--",
		"--b\r\nContent-Disposition: form-data; name=file; filename=d\r\nContent-Type: application/x-directory\r\n\r\n\r\n--b--",
		"--b\r\nContent-Disposition: form-data; name=file; filename=l\r\nContent-Type: application/symlink\r\n\r\n../x\r\n--b--",
		"--b\r\nContent-Disposition: form-data; name=file; filename=..%2F..%2Fetc%2Fpasswd\r\n\r\nx\r\n--b--",
		"--b\r\nContent-Disposition: form-data; filename=%zz\r\n\r\nx\r\n--b--", "--b\r\n\r\n--b", "", "--b--",
		"--b\r\nContent-Disposition: form-data; name=file; filename=a\r\n\r\ntorn",
	} {
		for _, query := range []string{"", "wrap-with-directory=true&progress=true"} {
			f.Add(query, boundary, []byte(seed))
		}
	}
	f.Add("chunker=size-2&max-file-links=2&raw-leaves=false&cid-version=0", boundary, []byte("--b\r\nContent-Disposition: form-data; filename=a\r\n\r\nabcdefghij\r\n--b--"))
	f.Add("chunker=rabin-1-2-3&trickle=true&hash=blake3", "multipart/form-data; boundary=\"b\"", []byte("--b\r\n\r\nx\r\n--b--"))
	f.Fuzz(func(t *testing.T, query, contentType string, body []byte) {
		got := ask(server, "add?only-hash=true&"+harmless(query), contentType, body)
		checkAdd(t, got, contentType, body)
	})
}

// harmless leaves out what httptest.NewRequest takes for the test's own mistake; FuzzQuery has the rest.
func harmless(s string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || r == '%' || r == '#' {
			return -1
		}
		return r
	}, s)
}

// checkAdd: an error or an answer; every CID is one; a whole body of one file is never refused for its content.
func checkAdd(t *testing.T, got *httptest.ResponseRecorder, contentType string, body []byte) {
	t.Helper()
	result := got.Result()
	failed := result.Trailer.Get("X-Stream-Error")
	switch result.StatusCode {
	case http.StatusOK:
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusInternalServerError:
		if got.Body.Len() == 0 {
			t.Fatal("an error without a word")
		}
		return
	default:
		t.Fatalf("status %d: %s", result.StatusCode, got.Body)
	}
	rows := json.NewDecoder(got.Body)
	hashes := 0
	for {
		var row addReply
		err := rows.Decode(&row)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal("no JSON:", err)
		}
		if row.Hash == "" {
			continue
		}
		hashes++
		if _, err := cid.Decode(row.Hash); err != nil {
			t.Fatalf("%q is no CID: %v", row.Hash, err)
		}
	}
	if failed == "" && hashes > 0 && !wholeForm(contentType, body) {
		t.Fatalf("a torn body was acknowledged: %q by %q, trailer %q", body, got.Body, failed)
	}
}

// wholeForm tells whether the standard library reads the body to its end, or to a part without a name, where boxo,
// and so Kubo, ends.
func wholeForm(contentType string, body []byte) bool {
	_, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	parts := multipart.NewReader(bytes.NewReader(body), parameters["boundary"])
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return true
		}
		if err != nil {
			return false
		}
		if _, _, err := mime.ParseMediaType(part.Header.Get("Content-Disposition")); err != nil {
			return true
		}
		if _, err := io.Copy(io.Discard, part); err != nil {
			return false
		}
	}
}

// FuzzSignature: only the true signature of the true data is valid, and no text of one ends the daemon.
func FuzzSignature(f *testing.F) {
	server := New(nodetest.New(f).Node, func() {})
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	raw, err := key.Sign([]byte("something else"))
	if err != nil {
		f.Fatal(err)
	}
	foreign, err := multibase.Encode(multibase.Base64url, raw)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{foreign, "", "u", "uAA", "f00", "zz", "m!!", "\x00"} {
		f.Add(seed, "self", []byte("data"))
	}
	f.Add(foreign, "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN", []byte{})
	f.Add("uAA", "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N", []byte{})
	f.Add("uAA", "/ipns/nobody", []byte{})
	f.Fuzz(func(t *testing.T, signature, name string, data []byte) {
		contentType, body := form(t, data)
		got := ask(server, "key/verify?"+url.Values{"signature": {signature}, "key": {name}}.Encode(), contentType, body)
		if got.Code == http.StatusOK && !strings.Contains(got.Body.String(), `"SignatureValid":false`) {
			t.Fatalf("a signature from nowhere is valid: %s", got.Body)
		}
		if got.Code != http.StatusOK && (got.Code != http.StatusInternalServerError || !strings.Contains(got.Body.String(), `"Message"`)) {
			t.Fatalf("status %d: %s", got.Code, got.Body)
		}
		if name != selfKey {
			return
		}
		signed := ask(server, "key/sign", contentType, body)
		var made struct{ Signature string }
		if err := json.Unmarshal(signed.Body.Bytes(), &made); err != nil {
			t.Fatal(err)
		}
		again := ask(server, "key/verify?"+url.Values{"signature": {made.Signature}}.Encode(), contentType, body)
		if !strings.Contains(again.Body.String(), `"SignatureValid":true`) {
			t.Fatalf("our own signature is not valid: %s", again.Body)
		}
		otherType, otherBody := form(t, append(slices.Clone(data), 'x'))
		other := ask(server, "key/verify?"+url.Values{"signature": {made.Signature}}.Encode(), otherType, otherBody)
		if !strings.Contains(other.Body.String(), `"SignatureValid":false`) {
			t.Fatalf("a signature holds for other data: %s", other.Body)
		}
	})
}
