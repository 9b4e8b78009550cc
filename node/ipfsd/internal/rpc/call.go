package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"shoal/ipfsd/internal/node"
)

// call is one request to a command: its checked input, and the reply under construction.
type call struct {
	context.Context
	node *node.Node
	body body
	args []string
	view node.Content // with or without the swarm, as offline= says

	values  map[string]any
	request *http.Request
	writer  http.ResponseWriter
	stop    func() // ends the daemon
	started bool
}

// refusal is an error found before the command runs: a status and plain text.
type refusal struct {
	status int
	say    string
}

func (r *refusal) Error() string { return r.say }

func refuse(format string, values ...any) error {
	return &refusal{http.StatusBadRequest, fmt.Sprintf(format, values...)}
}

// failure is an error in Kubo's JSON with a status of its own.
type failure struct {
	status int
	say    string
}

func (f *failure) Error() string { return f.say }

// parseQuery checks a query against the command's table. Unknown options are given back, not refused.
func parseQuery(c command, query string) (args []string, values map[string]any, unknown []string, err error) {
	words, err := url.ParseQuery(query)
	if err != nil {
		return nil, nil, nil, refuse("the query cannot be read: %v", err)
	}
	args = words["arg"]
	if len(args) < c.minArgs {
		return nil, nil, nil, refuse("argument %d of at least %d is required", len(args)+1, c.minArgs)
	}
	if len(args) > c.maxArgs {
		return nil, nil, nil, refuse("at most %d arguments are taken, got %d", c.maxArgs, len(args))
	}
	values = map[string]any{}
	for name, given := range words {
		if name == "arg" {
			continue
		}
		if len(given) > 1 {
			return nil, nil, nil, refuse("option %q is given %d times", name, len(given))
		}
		known, found := c.option(name)
		if !found {
			unknown = append(unknown, name)
			continue
		}
		canonical := known.names[0]
		if _, twice := values[canonical]; twice {
			return nil, nil, nil, refuse("option %q is given twice, under two names", canonical)
		}
		value, err := parseValue(known.kind, given[0])
		if err != nil {
			return nil, nil, nil, refuse("option %q: %v", name, err)
		}
		values[canonical] = value
	}
	return args, values, unknown, nil
}

func parseValue(k kind, given string) (any, error) {
	switch k {
	case flag:
		if given == "" { // a name without a value
			return true, nil
		}
		value, err := strconv.ParseBool(strings.ToLower(given))
		if err != nil {
			return nil, fmt.Errorf("expected true or false, got %q", given)
		}
		return value, nil
	case number:
		value, err := strconv.ParseInt(given, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("expected a whole number, got %q", given)
		}
		return value, nil
	case duration:
		value, err := time.ParseDuration(given)
		if err != nil || value < 0 {
			return nil, fmt.Errorf("expected a duration with a unit, such as 30s, got %q", given)
		}
		return value, nil
	default:
		return given, nil
	}
}

// get gives an option's value, or the other one when the caller did not say.
func get[T any](c *call, name string, otherwise T) T {
	if value, ok := c.values[name].(T); ok {
		return value
	}
	return otherwise
}

func (c *call) flag(name string) bool { return get(c, name, false) }

func (c *call) text(name string) string { return get(c, name, "") }

// parts reads the multipart body.
func (c *call) parts() (*multipart.Reader, error) {
	kind, parameters, err := mime.ParseMediaType(c.request.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" || parameters["boundary"] == "" {
		return nil, refuse("file argument %q is required, as multipart/form-data", c.body.name)
	}
	return multipart.NewReader(c.request.Body, parameters["boundary"]), nil
}

// data reads the first part of the body whole; the command's bound keeps it small.
func (c *call) data() ([]byte, error) {
	parts, err := c.parts()
	if err != nil {
		return nil, err
	}
	part, err := parts.NextPart()
	if err != nil {
		return nil, fmt.Errorf("the multipart body cannot be read: %w", err)
	}
	return io.ReadAll(part)
}

// emit sends one JSON value and a newline.
func (c *call) emit(value any) error {
	line, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if !c.started {
		c.begin("application/json", "X-Chunked-Output")
	}
	_, err = c.writer.Write(append(line, '\n'))
	return err
}

// emitNow is emit for streams whose reader waits for each line.
func (c *call) emitNow(value any) error {
	if err := c.emit(value); err != nil {
		return err
	}
	return c.flush()
}

func (c *call) flush() error { return http.NewResponseController(c.writer).Flush() }

// stream begins a reply of plain bytes.
func (c *call) stream(contentType string, size int64) io.Writer {
	c.writer.Header().Set("X-Content-Length", strconv.FormatInt(size, 10))
	c.begin(contentType, "X-Stream-Output")
	return c.writer
}

// begin sends the header. An error after this can be told in the trailer only.
func (c *call) begin(contentType, mark string) {
	header := c.writer.Header()
	header.Set("Content-Type", contentType)
	header.Set(mark, "1")
	header.Set("Trailer", "X-Stream-Error")
	c.writer.WriteHeader(http.StatusOK)
	c.started = true
}

// finish turns what the command returned into the end of the reply.
func (c *call) finish(err error) {
	if err == nil {
		if !c.started {
			c.begin("text/plain", "X-Chunked-Output")
		}
		return
	}
	if cause := c.Err(); errors.Is(cause, context.DeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded) {
		// The libraries have many words for having run out of time; Kubo's clients look for these.
		err = fmt.Errorf("%w: %w", cause, err)
	}
	if c.started {
		c.writer.Header().Set("X-Stream-Error", strings.ReplaceAll(err.Error(), "\n", " "))
		return
	}
	writeError(c.writer, err)
}

func writeError(w http.ResponseWriter, err error) {
	var refused *refusal
	if errors.As(err, &refused) {
		http.Error(w, refused.say, refused.status)
		return
	}
	status := http.StatusInternalServerError
	var failed *failure
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &failed):
		status = failed.status
	case errors.As(err, &tooBig):
		status = http.StatusRequestEntityTooLarge
		err = fmt.Errorf("the request's body is larger than %d bytes", tooBig.Limit)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct {
		Message string
		Code    int
		Type    string
	}{err.Error(), 0, "error"})
}

// maxUnknownOptions bounds what is remembered, and logged, of a caller who makes up names.
const maxUnknownOptions = 1000

// unknownOptions remembers what was already logged.
type unknownOptions struct {
	seen  sync.Map
	count atomic.Int64
}

func (u *unknownOptions) log(path string, names []string) {
	for _, name := range names {
		if u.count.Load() >= maxUnknownOptions {
			return
		}
		if _, before := u.seen.LoadOrStore(path+"?"+name, true); !before {
			u.count.Add(1)
			slog.Warn("unknown option ignored", "command", path, "option", name)
		}
	}
}
