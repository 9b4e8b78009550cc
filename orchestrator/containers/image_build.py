"""One image built, by Compose, which brings BuildKit's client along.

What of this host a build must know stays out of the image: BuildKit forgets arguments that are proxies by
itself; certificates and the package index are secrets.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from orchestrator import process, setup
from orchestrator.containers import dockerd, image_files
from orchestrator.containers.engine import Engine

LABEL: Final = "shoal.image"
PROXIES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
CERTIFICATES: Final = "/run/secrets/certificates"  # in the build
PIP_KEYS: Final = ("index-url", "extra-index-url", "trusted-host", "timeout", "default-timeout", "retries")
# The same two settings as other programs call them; the first that is set counts.
INDEX_VARIABLES: Final = {
    "index-url": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "extra-index-url": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
}
CERTIFICATE_VARIABLES: Final = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
ASK_TIMEOUT_S: Final = 60.0
SAID_LINES: Final = 12
STEP: Final = re.compile(r"#\d+ \[(?:\w+ )?([\w-]+ \d+/\d+)\] (.{0,80})")

Say = Callable[[str], None]


@dataclass(frozen=True)
class IndexSettings:
    """How the package index is reached: pip's configuration, and the host's own bundle of certificates."""

    pip: str
    certificates: Path | None


def build(
    engine: Engine, image: str, target: str, files: Mapping[str, Path], args: Mapping[str, str], say: Say
) -> None:
    """Build `target` of the Dockerfile as `image`, out of exactly these files."""
    with tempfile.TemporaryDirectory(prefix="shoal-image-") as name:
        folder = Path(name)  # nobody else may read it
        image_files.gather(files, folder / "context")
        settings = index_settings(dict(os.environ))
        (folder / "pip").write_text(settings.pip)
        bundle = settings.certificates.read_bytes() if settings.certificates else b""
        (folder / "certificates").write_bytes(bundle)
        (folder / "images.json").write_text(json.dumps(description(folder, image, target, args, os.environ)))
        run(engine, folder / "images.json", target, say)


def description(
    folder: Path, image: str, target: str, args: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, object]:
    """What Compose is asked to build."""
    proxies = [name for proxy in PROXIES for name in (proxy, proxy.lower()) if name in environment]
    secrets = ("pip", "certificates")
    return {
        "name": "shoal-images",
        "services": {
            target: {
                "image": image,
                "build": {
                    "context": str(folder / "context"),
                    "target": target,
                    "network": "host",  # a proxy may listen on the host's loopback
                    "args": [*(f"{name}={value}" for name, value in args.items()), *proxies],
                    "labels": {LABEL: target},
                    "secrets": list(secrets),
                },
            }
        },
        "secrets": {name: {"file": str(folder / name)} for name in secrets},
    }


def run(engine: Engine, file: Path, target: str, say: Say) -> None:
    """Have it built, and say which step it is at; when it fails, its last lines."""
    started = process.start(
        [*engine.compose.argv, "--file", str(file), "--progress", "plain", "build", target],
        env={**engine.environment, "DOCKER_BUILDKIT": "1", "COMPOSE_BAKE": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    last: deque[str] = deque(maxlen=SAID_LINES)
    try:
        assert started.stdout is not None
        for raw in started.stdout:
            line = raw.decode(errors="replace").rstrip()
            if line:
                last.append(line)
            step = STEP.match(line)
            if step:
                say(f"image {target}: {step[1]} {step[2]}")
        status = started.wait()
    finally:
        # Also after Ctrl-C: the engine ends a build whose client has gone.
        if started.poll() is None:
            started.kill()
            started.wait()
        if started.stdout is not None:
            started.stdout.close()
    if status:
        raise dockerd.complaint("\n".join(last), f"The image {target} could not be built")


def index_settings(environment: Mapping[str, str]) -> IndexSettings:
    """What pip was told on this host, by files or the environment, and what uv was told."""
    python = setup.find_python()
    listed = ""
    if python is not None and setup.has_pip(python):
        listed = process.run([python, "-m", "pip", "config", "list"], timeout_s=ASK_TIMEOUT_S).stdout
    return settings_in(listed, environment)


def settings_in(listed: str, environment: Mapping[str, str]) -> IndexSettings:
    """The lines of `pip config list` as one file for the build; the environment outranks pip's files."""
    told: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in listed.splitlines():
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                told[key[len(section) + 1 :]] = value.strip("'\"").replace("\\n", " ")
    for key, names in INDEX_VARIABLES.items():
        for name in reversed(names):
            if environment.get(name):
                told[key] = environment[name]
    named = [told.get("cert"), *(environment.get(name) for name in CERTIFICATE_VARIABLES)]
    certificates = next((Path(path) for path in named if path and Path(path).is_file()), None)
    lines = ["[global]", *(f"{key} = {told[key]}" for key in PIP_KEYS if told.get(key))]
    if certificates is not None:
        lines.append(f"cert = {CERTIFICATES}")
    return IndexSettings("\n".join(lines) + "\n", certificates)
