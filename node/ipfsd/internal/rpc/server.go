package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"shoal/ipfsd/internal/node"
)

const (
	apiPrefix      = "/api/v0/"
	maxHeaderBytes = 1 << 16
	headerTimeout  = 10 * time.Second
)

// Server answers the RPC.
type Server struct {
	node     *node.Node
	stop     func()
	unknown  unknownOptions
	http     *http.Server
	end      context.CancelFunc
	serveErr chan error
	lines    []net.Listener
}

// New makes the server; stop ends the daemon and must return at once.
func New(n *node.Node, stop func()) *Server {
	ctx, end := context.WithCancel(context.Background())
	s := &Server{node: n, stop: stop, end: end, serveErr: make(chan error, 1)}
	mux := http.NewServeMux()
	mux.HandleFunc(apiPrefix, s.answer)
	mux.Handle("GET /debug/metrics/prometheus", promhttp.Handler())
	s.http = &http.Server{
		Handler: mux, ReadHeaderTimeout: headerTimeout, MaxHeaderBytes: maxHeaderBytes,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	return s
}

// Listen opens the addresses of Addresses.API and gives them back with their real ports.
func (s *Server) Listen(addresses []ma.Multiaddr) ([]ma.Multiaddr, error) {
	var open []ma.Multiaddr
	for _, address := range addresses {
		listener, err := manet.Listen(address)
		if err != nil {
			return nil, fmt.Errorf("listen on %s (Addresses.API): %w", address, err)
		}
		s.lines = append(s.lines, manet.NetListener(listener))
		open = append(open, listener.Multiaddr())
	}
	return open, nil
}

// Serve answers until Shutdown; the channel tells when a listener fails.
func (s *Server) Serve() <-chan error {
	for _, line := range s.lines {
		go func() {
			if err := s.http.Serve(line); !errors.Is(err, http.ErrServerClosed) {
				s.serveErr <- err
			}
		}()
	}
	return s.serveErr
}

// Shutdown ends waiting calls at once and gives the rest until the deadline.
func (s *Server) Shutdown(ctx context.Context) error {
	s.end()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// fromBrowser tells whether a web page may be behind the request. No page has business here.
func fromBrowser(r *http.Request) bool {
	return r.Header.Get("Origin") != "" || r.Header.Get("Referer") != "" ||
		strings.HasPrefix(r.Header.Get("User-Agent"), "Mozilla")
}

func (s *Server) answer(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, apiPrefix)
	switch {
	case fromBrowser(r):
		http.Error(w, "403 - Forbidden", http.StatusForbidden)
		return
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "405 - Method Not Allowed", http.StatusMethodNotAllowed)
		return
	}
	known, found := commands[path]
	if !found {
		http.Error(w, "404 page not found", http.StatusNotFound)
		return
	}
	args, values, unknown, err := parseQuery(known, r.URL.RawQuery)
	s.unknown.log(path, unknown)
	if err != nil {
		writeError(w, err)
		return
	}
	c := &call{Context: r.Context(), node: s.node, body: known.body, args: args, values: values, request: r, writer: w, stop: s.stop}
	c.view = s.node.View(c.flag("offline"))
	if limit := get(c, "timeout", time.Duration(0)); limit > 0 {
		var done context.CancelFunc
		c.Context, done = context.WithTimeout(r.Context(), limit)
		defer done()
	}
	c.boundBody()
	err = known.run(c)
	c.drain()
	c.finish(err)
}

// boundBody limits the body and lets the reply of a command that has one begin before the body's end.
func (c *call) boundBody() {
	limit := c.body.maxBytes
	if limit == 0 {
		limit = c.node.Repo.Config.StorageMaxBytes()
	}
	if c.body.name == "" {
		limit = 0
	}
	c.request.Body = http.MaxBytesReader(c.writer, c.request.Body, limit)
	if c.body.name != "" {
		control := http.NewResponseController(c.writer)
		c.request.Body = &movingBody{ReadCloser: c.request.Body, control: control, stall: bodyStall}
		// Only HTTP/1.1 can; the rest waits for the whole body, as Go does by default.
		_ = control.EnableFullDuplex()
	}
}

// bodyStall is how long a body may stand still. A caller that stops in the middle of an add would otherwise hold
// the lock that keeps garbage collection out, for ever, and everybody who waits behind it.
const bodyStall = time.Minute

// movingBody ends a body that stands still.
type movingBody struct {
	io.ReadCloser
	control *http.ResponseController
	stall   time.Duration
}

func (b *movingBody) Read(into []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(b.stall)) // a recorder in a test cannot, and needs none
	n, err := b.ReadCloser.Read(into)
	if err != nil {
		// From here on the server only listens for the caller's hanging up, which may take its time.
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}

// maxDrainedBytes is read of a body that nobody wants, to keep its connection.
const maxDrainedBytes = 1 << 20

// drain reads the rest of the body. With full duplex the server would otherwise wait for the next request while
// the body is still being read, which it answers with a panic.
func (c *call) drain() {
	if c.body.name == "" {
		return
	}
	_, err := io.CopyN(io.Discard, c.request.Body, maxDrainedBytes)
	switch {
	case errors.Is(err, io.EOF):
	case !c.started:
		c.writer.Header().Set("Connection", "close")
	default:
		// The header is out, and a body without end is left: only breaking the connection says that it failed.
		panic(http.ErrAbortHandler)
	}
}
