"""Finding a published data set on this machine, else fetching it once, checked by its hash."""

from __future__ import annotations

import hashlib
import os
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from node.contract import ENV_DATA, HostError
from node.ipfs import cache

STALL_S = 30.0


@dataclass(frozen=True)
class Published:
    """A file that somebody publishes, and the names that copies of it go by; the first archive's is ours."""

    names: tuple[str, ...]
    url: str
    sha256: str
    max_bytes: int

    @property
    def file_name(self) -> str:
        return self.url.rpartition("/")[2]


def find_or_download(published: Published) -> Path:
    """In the folder SHOAL_DATA, our cache or Keras' cache; else downloaded into our cache."""
    own = cache.folder() / "data"
    keras = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"
    named = os.environ.get(ENV_DATA)
    for folder in ([Path(named)] if named else []) + [own, keras]:
        for name in published.names:
            if (folder / name).exists():
                return folder / name
    final = own / published.file_name
    with cache.locked(own / "lock"):
        if not final.exists():
            part = final.with_name(f"{final.name}.part")
            try:
                if _download(published, part) != published.sha256:
                    raise HostError(
                        f"{published.url} does not have the SHA-256 that is known", _cure(published)
                    )
                cache.put_in_place(part, final)
            finally:
                part.unlink(missing_ok=True)
    return final


def _download(published: Published, into: Path) -> str:
    """Write the body to `into` and return its SHA-256."""
    digest, count, progress = hashlib.sha256(), 0, cache.Progress(every=100)
    cache.say(f"fetching {published.url}")
    context = ssl.create_default_context()
    try:
        with (
            urllib.request.urlopen(published.url, timeout=STALL_S, context=context) as response,
            open(into, "wb") as out,
        ):
            while piece := response.read(1 << 18):
                count += len(piece)
                if count > published.max_bytes:
                    raise HostError(
                        f"{published.url} is larger than {published.max_bytes} bytes", _cure(published)
                    )
                digest.update(piece)
                out.write(piece)
                progress.show(f"{count >> 20} MiB")
    except (OSError, HTTPException) as err:
        reason = err.reason if isinstance(err, urllib.error.URLError) else err
        raise HostError(f"cannot fetch {published.url}: {reason}", _cure(published)) from err
    finally:
        progress.done()
    return digest.hexdigest()


def _cure(published: Published) -> str:
    return (
        f"put {' or '.join(published.names)} into a folder and name that by {ENV_DATA}, or make the address "
        "reachable (HTTPS_PROXY); digits, mnist-5k and synthetic-cifar need no download"
    )
