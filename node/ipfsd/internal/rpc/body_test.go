package rpc

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"
)

func TestABodyThatStandsStillIsEnded(t *testing.T) {
	const stall = 50 * time.Millisecond
	type result struct {
		data string
		err  error
	}
	read := make(chan result, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex() // as for every command with a body: the answer does not wait for the rest of it
		body := &movingBody{ReadCloser: r.Body, control: control, stall: stall}
		data, err := io.ReadAll(body)
		read <- result{string(data), err}
	}))
	defer server.Close()
	conn, err := net.Dial("tcp4", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	// Ten bytes are announced, and four come.
	if _, err := io.WriteString(conn, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"); err != nil {
		t.Fatal(err)
	}
	var got result
	select {
	case got = <-read:
	case <-time.After(200 * stall):
		t.Fatal("it is still waited for")
	}
	if got.data != "half" || !errors.Is(got.err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %q, then %v; the body stands still", got.data, got.err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("the caller is not answered: %v", err)
	}
	_ = response.Body.Close()
}
