package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"shoal/ipfsd/internal/nodetest"
)

// asDaemon makes this test binary be the daemon.
const asDaemon = "SHOAL_IPFSD_TEST_RUNS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func command(path string, args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], args...)
	c.Env = append(os.Environ(), asDaemon+"=1", "IPFS_PATH="+path)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

// process is a daemon in a process of its own.
type process struct {
	*exec.Cmd
	url string
}

func start(t *testing.T, path string) *process {
	t.Helper()
	p := &process{Cmd: command(path, "daemon")}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaints bytes.Buffer
	p.Stderr = &complaints
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "Daemon is ready" {
			address, err := os.ReadFile(filepath.Join(path, "api"))
			if err != nil {
				t.Fatal(err)
			}
			words := strings.Split(string(address), "/") // /ip4/127.0.0.1/tcp/PORT
			p.url = fmt.Sprintf("http://%s:%s/api/v0/", words[2], words[4])
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return p
		}
	}
	_ = p.Wait()
	t.Fatalf("the daemon did not start: %s", &complaints)
	return nil
}

func (p *process) kill() {
	_ = p.Process.Kill()
	_, _ = p.Process.Wait()
}

// post gives the whole answer of a call that succeeded.
func (p *process) post(path, contentType string, body io.Reader) (string, error) {
	ctx, done := context.WithTimeout(context.Background(), nodetest.Patience)
	defer done()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+path, body)
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", contentType)
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(response.Body)
	if failed := response.Trailer.Get("X-Stream-Error"); err == nil && (response.StatusCode != http.StatusOK || failed != "") {
		err = fmt.Errorf("status %d, %s%s", response.StatusCode, text, failed)
	}
	return string(text), err
}

func (p *process) add(data []byte) (string, error) {
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	part, err := form.CreateFormFile("file", "file")
	if err != nil {
		return "", err
	}
	_, _ = part.Write(data)
	if err := form.Close(); err != nil {
		return "", err
	}
	text, err := p.post("add?chunker=size-4096", form.FormDataContentType(), &body)
	if err != nil {
		return "", err
	}
	var row struct{ Hash string }
	return row.Hash, json.Unmarshal([]byte(text), &row)
}

func content(number int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "file %d, ", number), 40_000)
}

func TestKilledInTheMiddleOfAnAdd(t *testing.T) {
	path := nodetest.Init(t)
	acknowledged := map[string]int{} // CID: number of the file
	next := 0
	for kill := range 3 {
		p := start(t, path)
		for range 2 {
			key, err := p.add(content(next))
			if err != nil {
				t.Fatal(err)
			}
			acknowledged[key] = next
			next++
		}
		whole := blocks(t, p)
		// This one never ends: the body stops in the middle, and the daemon dies with some of its blocks stored.
		reader, writer := io.Pipe()
		ended := make(chan error, 1)
		go func() {
			_, err := p.post("add?chunker=size-4096", "multipart/form-data; boundary=b", reader)
			ended <- err
		}()
		if _, err := writer.Write([]byte("--b\r\nContent-Disposition: form-data; name=file; filename=torn\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		if _, err := writer.Write(bytes.Repeat(fmt.Appendf(nil, "torn %d, ", kill), 200_000)); err != nil {
			t.Fatal(err)
		}
		nodetest.WaitUntil(t, "some of its blocks", func() bool { return blocks(t, p) > whole })
		p.kill()
		_ = writer.CloseWithError(io.ErrClosedPipe)
		if err := <-ended; err == nil {
			t.Fatal("half a file was acknowledged")
		}
	}

	p := start(t, path)
	before := blocks(t, p)
	if _, err := p.post("repo/gc", "", nil); err != nil {
		t.Fatal(err)
	}
	after := blocks(t, p)
	if after >= before {
		t.Errorf("the torn files left nothing to collect: %d blocks before, %d after", before, after)
	}
	for key, number := range acknowledged {
		if got, err := p.post("cat?offline=true&arg="+key, "", nil); err != nil || got != string(content(number)) {
			t.Errorf("file %d, acknowledged as %s, is not there: %d bytes, %v", number, key, len(got), err)
		}
		if got, err := p.post("pin/ls?arg="+key, "", nil); err != nil || !strings.Contains(got, "recursive") {
			t.Errorf("file %d lost its pin: %s, %v", number, got, err)
		}
	}
	// The collection took all the rest.
	if _, err := p.post("repo/gc", "", nil); err != nil || blocks(t, p) != after {
		t.Error("a second collection found more", err)
	}
}

// blocks counts what is stored.
func blocks(t *testing.T, p *process) int {
	t.Helper()
	text, err := p.post("refs/local", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(text, "\n")
}

func TestSecondDaemonOnOneRepository(t *testing.T) {
	path := nodetest.Init(t)
	first := start(t, path)
	out, err := command(path, "daemon").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "someone else has the lock") {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := first.post("version", "", nil); err != nil {
		t.Fatal("the first suffered:", err)
	}
	if _, err := os.Stat(filepath.Join(path, "api")); err != nil {
		t.Error("the first one's file api is gone:", err)
	}
	first.kill()
	if _, err := os.Stat(filepath.Join(path, "repo.lock")); err != nil {
		t.Fatal("the test is wrong, no lock file is left:", err)
	}
	start(t, path)
}

func TestSignalsAndShutdownEndTheDaemonWell(t *testing.T) {
	for name, end := range map[string]func(*process) error{
		"SIGTERM":  func(p *process) error { return p.Process.Signal(syscall.SIGTERM) },
		"SIGINT":   func(p *process) error { return p.Process.Signal(syscall.SIGINT) },
		"shutdown": func(p *process) error { _, err := p.post("shutdown", "", nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			path := nodetest.Init(t)
			p := start(t, path)
			if err := end(p); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- p.Wait() }()
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("%v: %s", err, p.Stderr)
				}
			case <-time.After(nodetest.Patience):
				t.Fatal("it still runs")
			}
			if _, err := os.Stat(filepath.Join(path, "api")); !os.IsNotExist(err) {
				t.Error("the file api is left:", err)
			}
		})
	}
}

func TestRun(t *testing.T) {
	t.Setenv("IPFS_PATH", filepath.Join(t.TempDir(), "repo"))
	for _, row := range []struct {
		args string
		out  string // of a success
		says string // of a failure
	}{
		{"", "ipfs daemon", ""},
		{"help", "unixfs-v1-2025", ""},
		{"version", "shoal-ipfsd version ", ""},
		{"version -n", "0.", ""},
		{"init --help", "", ""},
		{"daemon --help", "", ""},
		{"daemon", "", "ipfs init"}, // the two calls for help did nothing
		{"frob", "", `"frob"`},
		{"init x", "", `no argument "x"`},
		{"init --nonsense", "", "nonsense"},
		{"init --profile=nonsense", "", `"nonsense"`},
		{"init -p test,,unixfs-v1-2025", "peer identity: 12D3Koo", ""},
		{"init", "", "already exists"},
	} {
		t.Run(row.args, func(t *testing.T) {
			var out bytes.Buffer
			err := run(strings.Fields(row.args), &out)
			switch {
			case row.says == "" && (err != nil || !strings.Contains(out.String(), row.out)):
				t.Errorf("%v: %s", err, &out)
			case row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)):
				t.Errorf("%v, want %s", err, row.says)
			}
		})
	}
}
