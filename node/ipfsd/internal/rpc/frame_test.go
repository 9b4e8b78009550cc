package rpc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ma "github.com/multiformats/go-multiaddr"

	"shoal/ipfsd/internal/nodetest"
)

// api is a node with its RPC on a test server.
type api struct {
	*nodetest.Running
	url     string
	server  *Server
	stopped atomic.Bool
}

func newAPI(t testing.TB) *api {
	t.Helper()
	return serve(t, nodetest.New(t))
}

func serve(t testing.TB, n *nodetest.Running) *api {
	t.Helper()
	a := &api{Running: n}
	a.server = New(n.Node, func() { a.stopped.Store(true) })
	web := httptest.NewUnstartedServer(a.server.http.Handler)
	web.Config.BaseContext = a.server.http.BaseContext
	web.Start()
	t.Cleanup(func() {
		a.server.end() // ends waiting calls, which Close would wait for
		web.Close()
	})
	a.url = web.URL + apiPrefix
	return a
}

type reply struct {
	status  int
	kind    string
	text    string
	header  http.Header
	trailer http.Header
}

// send posts whatever body, of whatever type.
func (a *api) send(t testing.TB, path, contentType string, body io.Reader) reply {
	t.Helper()
	request, err := http.NewRequestWithContext(nodetest.Context(t), http.MethodPost, a.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("User-Agent", "test")
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	return do(t, request)
}

func do(t testing.TB, request *http.Request) reply {
	t.Helper()
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	kind, _, _ := strings.Cut(response.Header.Get("Content-Type"), ";")
	return reply{response.StatusCode, kind, string(body), response.Header, response.Trailer}
}

// post calls a command without a body.
func (a *api) post(t testing.TB, path string) reply {
	t.Helper()
	return a.send(t, path, "", nil)
}

// form is a multipart body of one file.
func form(t testing.TB, data []byte) (contentType string, body []byte) {
	t.Helper()
	var out bytes.Buffer
	w := multipart.NewWriter(&out)
	part, err := w.CreateFormFile("file", "file")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := part.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return w.FormDataContentType(), out.Bytes()
}

// give calls a command with data as its body.
func (a *api) give(t testing.TB, path string, data []byte) reply {
	t.Helper()
	contentType, body := form(t, data)
	return a.send(t, path, contentType, bytes.NewReader(body))
}

// add adds a file and gives its CID.
func (a *api) add(t testing.TB, options string, data []byte) string {
	t.Helper()
	got := a.give(t, "add?"+options, data)
	var row addReply
	if err := json.Unmarshal([]byte(got.text), &row); err != nil || got.status != http.StatusOK || row.Hash == "" || got.trailer.Get("X-Stream-Error") != "" {
		t.Fatalf("add: %+v, %v", got, err)
	}
	return row.Hash
}

func (r reply) expectError(t testing.TB, status int, says string) {
	t.Helper()
	var fields map[string]any
	err := json.Unmarshal([]byte(r.text), &fields)
	if err != nil || r.status != status || r.kind != "application/json" {
		t.Fatalf("no error of %d in Kubo's shape: %+v", status, r)
	}
	if message, _ := fields["Message"].(string); !strings.Contains(message, says) || fields["Code"] != 0.0 || fields["Type"] != "error" || len(fields) != 3 {
		t.Fatalf("got %v, want …%s…", fields, says)
	}
}

func TestBrowsersAreRefused(t *testing.T) {
	a := newAPI(t)
	for name, header := range map[string][2]string{
		"origin": {"Origin", "http://evil.example"}, "null origin": {"Origin", "null"}, "our own origin": {"Origin", a.url},
		"referer": {"Referer", "http://evil.example/"}, "user agent": {"User-Agent", "Mozilla/5.0 (X11)"},
	} {
		for _, method := range []string{http.MethodPost, http.MethodGet, http.MethodOptions} {
			request, err := http.NewRequest(method, a.url+"shutdown", nil)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set(header[0], header[1])
			if got := do(t, request); got.status != http.StatusForbidden || got.kind != "text/plain" {
				t.Errorf("%s by %s: %+v", name, method, got)
			}
		}
	}
	if a.stopped.Load() {
		t.Fatal("a page ended the daemon")
	}
}

func TestOnlyPost(t *testing.T) {
	a := newAPI(t)
	for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete, http.MethodOptions} {
		request, err := http.NewRequest(method, a.url+"version", nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := do(t, request); got.status != http.StatusMethodNotAllowed || got.header.Get("Allow") != http.MethodPost || got.kind != "text/plain" {
			t.Errorf("%s: %+v", method, got)
		}
	}
}

func TestUnknownCommand(t *testing.T) {
	a := newAPI(t)
	for _, path := range []string{"", "nonsense", "version/", "Version", "config", "add/add", "dht/findpeer?arg=x"} {
		if got := a.post(t, path); got.status != http.StatusNotFound || got.kind != "text/plain" {
			t.Errorf("%q: %+v", path, got)
		}
	}
	for _, path := range []string{"", "webui", "ipfs/x", "api/v1/version", "debug/pprof/"} {
		request, err := http.NewRequest(http.MethodPost, strings.TrimSuffix(a.url, apiPrefix)+"/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := do(t, request); got.status != http.StatusNotFound {
			t.Errorf("/%s: %+v", path, got)
		}
	}
}

// TestEveryCommandChecksItsCall goes through the whole table, so that a new command is tested too.
func TestEveryCommandChecksItsCall(t *testing.T) {
	a := newAPI(t)
	for path, known := range commands {
		refused := func(what, query, says string) {
			t.Helper()
			if got := a.post(t, path+"?"+query); got.status != http.StatusBadRequest || got.kind != "text/plain" || !strings.Contains(got.text, says) {
				t.Errorf("%s with %s: %+v", path, what, got)
			}
		}
		enough := strings.Repeat("arg=x&", known.minArgs)
		if known.minArgs > 0 {
			refused("too few arguments", strings.Repeat("arg=x&", known.minArgs-1), "required")
		}
		if known.maxArgs < many {
			refused("too many arguments", strings.Repeat("arg=x&", known.maxArgs+1), "at most")
		}
		refused("a bad timeout", enough+"timeout=zz", "timeout")
		refused("an option given twice", enough+"offline=1&offline=1", "offline")
		for _, o := range known.options {
			if o.kind != text {
				refused("a bad "+o.names[0], enough+url.QueryEscape(o.names[0])+"=%20", o.names[0])
			}
		}
	}
	if a.stopped.Load() {
		t.Error("a refused shutdown ended the daemon")
	}
}

func TestMissingBody(t *testing.T) {
	a := newAPI(t)
	for path, query := range map[string]string{
		"add": "", "block/put": "", "dag/put": "", "key/sign": "", "key/verify": "signature=uAA", "pubsub/pub": "arg=uAA",
	} {
		name := commands[path].body.name
		for what, contentType := range map[string]string{"nothing": "", "text": "text/plain", "no boundary": "multipart/form-data", "torn": "multipart/form-data; boundary"} {
			got := a.send(t, path+"?"+query, contentType, strings.NewReader("x"))
			if got.status != http.StatusBadRequest || !strings.Contains(got.text, fmt.Sprintf("%q is required", name)) {
				t.Errorf("%s with %s: %+v", path, what, got)
			}
		}
	}
	for path, c := range commands {
		if c.body.name != "" && !strings.Contains("add block/put dag/put key/sign key/verify pubsub/pub", path) {
			t.Errorf("%s takes a body and is not in this test", path)
		}
	}
}

func TestBodyBeyondItsBound(t *testing.T) {
	path := nodetest.Init(t)
	nodetest.Set(t, path, "Datastore.StorageMax", "3MB")
	a := serve(t, nodetest.Start(t, path))
	for query, bound := range map[string]int{
		"add": 3e6, "add?pin=false&progress=false": 3e6, "block/put": maxBlockBytes + maxMultipartOverhead,
		"dag/put?input-codec=raw&store-codec=raw": maxBlockBytes + maxMultipartOverhead, "pubsub/pub?arg=uAA": 1<<20 + maxMultipartOverhead,
	} {
		contentType, body := form(t, make([]byte, bound))
		for what, reader := range map[string]io.Reader{"told": bytes.NewReader(body), "untold": struct{ io.Reader }{bytes.NewReader(body)}} {
			a.send(t, query, contentType, reader).expectError(t, http.StatusRequestEntityTooLarge, fmt.Sprintf("larger than %d bytes", bound))
			if got := a.post(t, "version"); got.status != http.StatusOK {
				t.Fatalf("after %s of %s length: %+v", query, what, got)
			}
		}
	}
	if got := a.post(t, "pin/ls?type=recursive&quiet=true"); strings.TrimSpace(got.text) != "{}" {
		t.Error("half a file was pinned:", got.text)
	}
}

func TestBodyOfACommandWithoutOneIsNotRead(t *testing.T) {
	a := newAPI(t)
	if got := a.give(t, "version", []byte("hello")); got.status != http.StatusOK || !strings.Contains(got.text, `"Version"`) {
		t.Errorf("%+v", got)
	}
}

func TestTornBodyAddsNothing(t *testing.T) {
	a := newAPI(t)
	contentType, body := form(t, bytes.Repeat([]byte("x"), 1000))
	first := bytes.Index(body, []byte("xxx"))
	for _, length := range []int{0, 10, first, first + 1, len(body) / 2, len(body) - 10} {
		got := a.send(t, "add", contentType, bytes.NewReader(body[:length]))
		if got.status == http.StatusOK || strings.Contains(got.text, `"Hash"`) {
			t.Errorf("%d of %d bytes were acknowledged: %+v", length, len(body), got)
		}
	}
	if got := a.post(t, "pin/ls?type=recursive"); strings.TrimSpace(got.text) != "{}" {
		t.Error("half a file was pinned:", got.text)
	}
}

func TestUnknownOptionIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	a := newAPI(t)
	for range 3 {
		for _, query := range []string{"version?wonder=1", "version?marvel=1&wonder", "id?wonder=1", "version"} {
			if got := a.post(t, query); got.status != http.StatusOK {
				t.Fatalf("%s: %+v", query, got)
			}
		}
	}
	a.server.end()
	if n := strings.Count(log.String(), "unknown option ignored"); n != 3 {
		t.Errorf("%d lines, want 3:\n%s", n, &log)
	}
	for _, want := range []string{"command=version option=wonder", "command=version option=marvel", "command=id option=wonder"} {
		if strings.Count(log.String(), want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, &log)
		}
	}
}

// TestTimeoutsAreObeyed asks every command that may wait for content that nobody has.
func TestTimeoutsAreObeyed(t *testing.T) {
	a := newAPI(t)
	stranger := "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
	for _, query := range []string{
		"cat?arg=" + sampleCID, "ls?arg=bafybeif7ztnhq65lumvvtr4ekcwd2ifwgm3awq4zfr3srh462rwyinlb4y", "block/get?arg=" + sampleCID,
		"block/stat?arg=" + sampleCID, "dag/get?arg=" + sampleCID, "dag/stat?arg=bafybeif7ztnhq65lumvvtr4ekcwd2ifwgm3awq4zfr3srh462rwyinlb4y",
		"pin/add?arg=" + sampleCID, "cat?arg=bafybeif7ztnhq65lumvvtr4ekcwd2ifwgm3awq4zfr3srh462rwyinlb4y/a/b",
	} {
		a.post(t, query+"&timeout=20ms").expectError(t, http.StatusInternalServerError, "context deadline exceeded")
	}
	if got := a.post(t, "pin/add?timeout=20ms&arg="+sampleCID); !strings.Contains(got.text, "pin: context deadline exceeded") {
		t.Error("Kubo's clients look for these words:", got.text)
	}
	if got := a.post(t, "pubsub/sub?timeout=20ms&arg=uAA"); got.status != http.StatusOK || got.text != "" {
		t.Errorf("a subscription ends with its time: %+v", got)
	}
	if got := a.post(t, "stats/bw?poll=true&timeout=20ms"); got.trailer.Get("X-Stream-Error") != "context deadline exceeded" {
		t.Errorf("an error in the middle of a stream stands in the trailer: %+v", got)
	}
	a.post(t, "ping?timeout=20ms&arg="+stranger).expectError(t, http.StatusInternalServerError, "ping failed")
}

func TestOfflineAsksNobody(t *testing.T) {
	a, b := newAPI(t), newAPI(t)
	nodetest.Connect(t, a.Running, b.Running)
	key := b.add(t, "", []byte("elsewhere"))
	for _, command := range []string{"cat", "block/get", "block/stat", "pin/add", "dag/get"} {
		a.post(t, command+"?offline=true&arg="+key).expectError(t, http.StatusInternalServerError, "block was not found locally (offline)")
	}
	if got := a.post(t, "cat?arg="+key); got.text != "elsewhere" {
		t.Errorf("%+v", got)
	}
	if got := a.post(t, "cat?offline=true&arg="+key); got.text != "elsewhere" {
		t.Errorf("what was fetched is kept: %+v", got)
	}
}

func TestErrorInTheMiddleStandsInTheTrailer(t *testing.T) {
	a := newAPI(t)
	key := a.add(t, "chunker=size-1024&pin=false", append(bytes.Repeat([]byte("a"), 1024), bytes.Repeat([]byte("b"), 1024)...))
	second := a.add(t, "only-hash=true&raw-leaves=true&cid-version=1", bytes.Repeat([]byte("b"), 1024))
	if got := a.post(t, "block/rm?arg="+second); !strings.Contains(got.text, second) || strings.Contains(got.text, "Error") {
		t.Fatalf("%+v", got)
	}
	got := a.post(t, "cat?offline=true&arg="+key)
	if got.status != http.StatusOK || got.text != strings.Repeat("a", 1024) || !strings.Contains(got.trailer.Get("X-Stream-Error"), "failed to fetch") {
		t.Errorf("%d bytes, trailer %q", len(got.text), got.trailer)
	}
}

func TestShutdownAnswersFirst(t *testing.T) {
	a := newAPI(t)
	if got := a.post(t, "shutdown"); got.status != http.StatusOK || got.text != "" || !a.stopped.Load() {
		t.Errorf("%+v", got)
	}
}

func TestMetricsAreServed(t *testing.T) {
	a := newAPI(t)
	request, err := http.NewRequest(http.MethodGet, strings.TrimSuffix(a.url, apiPrefix)+"/debug/metrics/prometheus", nil)
	if err != nil {
		t.Fatal(err)
	}
	got := do(t, request)
	for _, name := range []string{"shoal_ipfsd_corrupt_blocks_total", "ipfs_bitswap_", "libp2p_"} {
		if !strings.Contains(got.text, name) {
			t.Errorf("%s is missing", name)
		}
	}
}

func TestTakenAPIPortIsNamed(t *testing.T) {
	a := newAPI(t)
	taken, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	address := fmt.Sprintf("/ip4/127.0.0.1/tcp/%d", taken.Addr().(*net.TCPAddr).Port)
	_, err = a.server.Listen([]ma.Multiaddr{ma.StringCast(address)})
	if err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "Addresses.API") {
		t.Fatal(err)
	}
}

func TestShutdownEndsWaitingCalls(t *testing.T) {
	n := nodetest.New(t)
	s := New(n.Node, func() {})
	addresses, err := s.Listen([]ma.Multiaddr{ma.StringCast("/ip4/127.0.0.1/tcp/0")})
	if err != nil {
		t.Fatal(err)
	}
	failed := s.Serve()
	port, err := addresses[0].ValueForProtocol(ma.P_TCP)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		response, err := http.Post("http://127.0.0.1:"+port+apiPrefix+"cat?arg="+sampleCID, "", nil)
		if err == nil {
			err = response.Body.Close()
		}
		ended <- err
	}()
	nodetest.WaitUntil(t, "the call to wait", func() bool { return len(n.Bitswap.GetWantlist()) == 1 })
	ctx, done := context.WithTimeout(context.Background(), nodetest.Patience)
	defer done()
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case err := <-failed:
		t.Fatal(err)
	case <-time.After(nodetest.Patience):
		t.Fatal("the call still waits")
	}
}
