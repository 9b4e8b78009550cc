package rpc

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"shoal/ipfsd/internal/nodetest"
)

// TestWaitingPinHoldsNobodyUp: a pin may wait for ever for what nobody has; the rest of the daemon must not.
func TestWaitingPinHoldsNobodyUp(t *testing.T) {
	a := newAPI(t)
	ctx, cancel := context.WithCancel(nodetest.Context(t))
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url+"pin/add?arg="+sampleCID, nil)
		if err == nil {
			var response *http.Response
			if response, err = http.DefaultClient.Do(request); err == nil {
				err = response.Body.Close()
			}
		}
		ended <- err
	}()
	nodetest.WaitUntil(t, "the pin to wait", func() bool { return len(a.Bitswap.GetWantlist()) == 1 })
	garbage := a.add(t, "pin=false", []byte("garbage"))
	kept := a.add(t, "", []byte("kept"))
	if got := a.post(t, "repo/gc"); got.status != http.StatusOK || !strings.Contains(got.text, garbage) || strings.Contains(got.text, kept) {
		t.Errorf("%+v", got)
	}
	if len(a.Bitswap.GetWantlist()) != 1 {
		t.Error("the pin does not wait any more")
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("a pin of what nobody has succeeded")
	}
	nodetest.WaitUntil(t, "the want to end with its caller", func() bool { return len(a.Bitswap.GetWantlist()) == 0 })
	if got := a.post(t, "pin/ls?type=recursive"); strings.Contains(got.text, sampleCID) || !strings.Contains(got.text, kept) {
		t.Error(got.text)
	}
}

// TestWhatIsAcknowledgedSurvivesCollections adds from many sides while garbage is collected again and again.
func TestWhatIsAcknowledgedSurvivesCollections(t *testing.T) {
	const adders, files = 4, 15
	a := newAPI(t)
	keys := make([][]string, adders)
	var adding, collecting sync.WaitGroup
	stop := make(chan struct{})
	collecting.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if got := a.post(t, "repo/gc"); got.trailer.Get("X-Stream-Error") != "" || got.status != http.StatusOK {
				t.Errorf("%+v", got)
				return
			}
		}
	})
	content := func(adder, file int) []byte {
		return bytes.Repeat(fmt.Appendf(nil, "%d of %d, ", file, adder), 3000)
	}
	for adder := range adders {
		adding.Go(func() {
			for file := range files {
				keys[adder] = append(keys[adder], a.add(t, "chunker=size-4096", content(adder, file)))
			}
		})
	}
	adding.Wait()
	close(stop)
	collecting.Wait()
	for adder := range keys {
		for file, key := range keys[adder] {
			if got := a.post(t, "cat?offline=true&arg="+key); got.text != string(content(adder, file)) || got.trailer.Get("X-Stream-Error") != "" {
				t.Errorf("%s is lost", key)
			}
			if got := a.post(t, "pin/ls?type=recursive&arg="+key); got.status != http.StatusOK {
				t.Errorf("%s is not pinned: %+v", key, got)
			}
		}
	}
}

func TestOnlyHashStoresNothing(t *testing.T) {
	a := newAPI(t)
	data := bytes.Repeat([]byte("x"), 10_000)
	key := a.add(t, "only-hash=true&chunker=size-1000", data)
	if got := a.post(t, "refs/local"); got.text != "" {
		t.Error("blocks were stored:", got.text)
	}
	if real := a.add(t, "chunker=size-1000", data); real != key {
		t.Errorf("the hash was %s, the file is %s", key, real)
	}
}

// TestUploadThatHangsUp: half an upload leaves no pin, and collecting garbage takes its blocks.
func TestUploadThatHangsUp(t *testing.T) {
	a := newAPI(t)
	kept := a.add(t, "", []byte("kept"))
	contentType, body := form(t, bytes.Repeat([]byte("x"), 1<<20))
	conn, err := net.Dial("tcp4", strings.TrimSuffix(strings.TrimPrefix(a.url, "http://"), apiPrefix))
	if err != nil {
		t.Fatal(err)
	}
	head := "POST " + apiPrefix + "add?chunker=size-1024 HTTP/1.1\r\nHost: test\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
	if _, err := fmt.Fprintf(conn, head, contentType, len(body)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(body[:len(body)/2]); err != nil {
		t.Fatal(err)
	}
	nodetest.WaitUntil(t, "the first blocks", func() bool { return strings.Count(a.post(t, "refs/local").text, "\n") > 1 })
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	// The collection waits for the add to let go of its lock.
	if got := a.post(t, "repo/gc"); got.status != http.StatusOK || got.trailer.Get("X-Stream-Error") != "" {
		t.Fatalf("%+v", got)
	}
	if got := a.post(t, "refs/local"); strings.Count(got.text, "\n") != 1 {
		t.Errorf("more than the kept block is left:\n%s", got.text)
	}
	if got := a.post(t, "pin/ls?type=recursive"); strings.Count(got.text, "Type") != 1 || !strings.Contains(got.text, kept) {
		t.Error(got.text)
	}
}
