"""A fake `ipfs` program for the daemon's tests: `version`, `init`, `daemon`, and strict about the rest.

How it behaves stands in $FAKE_FAULT; standard library only, so that it starts fast.
"""

import http.server
import json
import os
import pathlib
import re
import signal
import sys


def fail(text: str, status: int = 99) -> None:
    print(text, flush=True)
    sys.exit(status)


def init(repository: pathlib.Path) -> None:
    if (repository / "config").exists():
        fail("ipfs configuration file already exists!")
    if os.environ.get("FAKE_FAULT") == "init":
        fail("Error: no space left on device", 1)
    config = {
        "Identity": {"PeerID": f"12D3fake{os.getpid()}", "PrivKey": "secret"},
        "Datastore": {"Spec": "kept"},
    }
    (repository / "config").write_text(json.dumps(config))


def daemon(repository: pathlib.Path) -> None:
    key = (repository / "swarm.key").read_text()
    if not re.fullmatch(r"/key/swarm/psk/1\.0\.0/\n/base16/\n[0-9a-f]{64}\n", key):
        fail("bad swarm key")
    if os.environ.get("LIBP2P_FORCE_PNET") != "1" or os.environ.get("IPFS_TELEMETRY") != "off":
        fail("bad environment")
    if "IPFS_LEAK" in os.environ:
        fail("the user's own IPFS_LEAK came through")
    fault = os.environ.get("FAKE_FAULT", "")
    config = json.loads((repository / "config").read_text())
    port = int(config["Addresses"]["API"].rsplit("/", 1)[1])
    identity = "12D3somebody-else" if fault == "stranger" else config["Identity"]["PeerID"]
    terms = []

    def term(*_: object) -> None:
        terms.append(1)
        print("terminating", flush=True)
        if fault == "deaf-to-term" or (fault == "subscriber" and len(terms) == 1):
            return
        os._exit(0)

    signal.signal(signal.SIGTERM, term)
    if fault == "dies":
        fail("first line\nError: lock repo.lock: someone else has the lock", 1)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            if self.path.split("?")[0] != "/api/v0/id":
                self.send_error(404)
                return
            body = json.dumps({"ID": identity}).encode()
            self.send_response(500 if fault == "never-ready" else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    try:
        server = http.server.HTTPServer(("127.0.0.1", port), Handler)
    except OSError as err:
        fail(f"Error: listen tcp4 127.0.0.1:{port}: bind: {(err.strerror or '').lower()}", 1)
    print("Daemon is ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    where = pathlib.Path(os.environ["IPFS_PATH"])
    if sys.argv[1:] == ["init", "--profile=autoconf-off,announce-off,unixfs-v1-2025"]:
        init(where)
    elif sys.argv[1:] == ["daemon"]:
        daemon(where)
    else:
        fail(f"bad call: {sys.argv[1:]}")
