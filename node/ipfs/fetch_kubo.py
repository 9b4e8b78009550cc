"""Fetch the official Kubo release; the last line of standard output is the binary's path.

    python3 node/ipfs/fetch_kubo.py [--from URL]

The archive is checked against its published SHA-512 and the binary kept in the cache folder.
Runs by path with any Python from 3.8 on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import ssl
import sys
import tarfile
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO

if __package__ in (None, ""):  # run by path
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from node.contract import ENV_KUBO, HostError
from node.ipfs import cache

VERSION = "0.43.1"
HOME = "https://dist.ipfs.tech"
MAX_ARCHIVE_BYTES = 300 << 20
MAX_BINARY_BYTES = 500 << 20
STALL_S = 30.0
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def binary_path() -> Path:
    """Where the fetched release stands, whether it is there or not."""
    return cache.folder() / "kubo" / f"v{VERSION}" / "ipfs"


def fetched() -> Path | None:
    """The fetched release, when there is one."""
    path = binary_path()
    return path if path.exists() else None


def fetch(home_url: str = HOME) -> Path:
    """Download, check and unpack the release, once."""
    binary = binary_path()
    if binary.exists():
        return binary
    machine = MACHINES.get(platform.machine())
    if machine is None:
        raise HostError(f"there is no Kubo release for {platform.machine()}", cure())
    url = f"{home_url.rstrip('/')}/kubo/v{VERSION}/kubo_v{VERSION}_linux-{machine}.tar.gz"
    with cache.locked(binary.parent.parent / "lock"):
        if not binary.exists():
            binary.parent.mkdir(parents=True, exist_ok=True)
            archive, made = binary.with_name("archive.part"), binary.with_name("ipfs.part")
            try:
                published = published_sha512(url + ".sha512")
                if download(url, archive) != published:
                    raise HostError(
                        f"{url} does not have the SHA-512 that is published beside it",
                        "try again; if that does not help, do not trust this source",
                    )
                unpack(archive, made)
                cache.put_in_place(made, binary)
            finally:
                archive.unlink(missing_ok=True)
                made.unlink(missing_ok=True)
    return binary


def opened(url: str) -> BinaryIO:
    cache.say(f"fetching {url}")
    response: BinaryIO = urllib.request.urlopen(url, timeout=STALL_S, context=ssl.create_default_context())
    return response


def published_sha512(url: str) -> str:
    """The hash in a .sha512 file: `<128 hex digits>  <file name>`."""
    try:
        with opened(url) as response:
            text = response.read(4096).decode("ascii", errors="replace")
    except (OSError, HTTPException) as err:
        raise unreachable(url, err) from err
    found = re.match(r"\s*([0-9a-fA-F]{128})\b", text)
    if not found:
        raise HostError(f"{url} holds no SHA-512", cure())
    return found.group(1).lower()


def download(url: str, into: Path) -> str:
    """Write the body to `into` and return its SHA-512; a body that is cut short is an error."""
    digest, count, progress = hashlib.sha512(), 0, cache.Progress(every=100)
    try:
        with opened(url) as response, open(into, "wb") as out:
            length = getattr(response, "length", None)  # what the server announced
            while True:
                piece = response.read(1 << 18)
                if not piece:
                    break
                count += len(piece)
                if count > MAX_ARCHIVE_BYTES:
                    raise HostError(f"{url} is larger than {MAX_ARCHIVE_BYTES} bytes", cure())
                digest.update(piece)
                out.write(piece)
                progress.show(f"{count >> 20} MiB of {(length or 0) >> 20} MiB")
            progress.done()
    except (OSError, HTTPException) as err:
        raise unreachable(url, err) from err
    if length is not None and count != length:
        raise HostError(f"{url} broke off after {count} of {length} bytes", "try again")
    return digest.hexdigest()


def unpack(archive: Path, into: Path) -> None:
    """Take the one file kubo/ipfs out of the archive, and nothing else."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            member = tar.getmember("kubo/ipfs")
            content = tar.extractfile(member) if member.isreg() else None
            if content is None or member.size > MAX_BINARY_BYTES:
                raise HostError(f"kubo/ipfs in {archive.name} is no plain file of a sane size", cure())
            with open(into, "wb") as out:
                for piece in iter(lambda: content.read(1 << 20), b""):
                    out.write(piece)
        os.chmod(into, 0o755)
    except (tarfile.TarError, KeyError, EOFError, OSError) as err:
        raise HostError(f"cannot unpack the Kubo release: {err}", cure()) from err


def unreachable(url: str, err: Exception) -> HostError:
    reason = err.reason if isinstance(err, urllib.error.URLError) else err
    return HostError(f"cannot fetch {url}: {reason}", cure())


def cure() -> str:
    return (
        f"make {HOME} reachable (HTTPS_PROXY), or name a mirror by --from URL, or a Kubo that is already "
        f"here by {ENV_KUBO}; without Kubo the embedded daemon is used"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=f"Fetch Kubo {VERSION} into the cache folder.")
    parser.add_argument("--from", dest="home_url", default=HOME, metavar="URL", help=f"instead of {HOME}")
    home_url = parser.parse_args().home_url
    return cache.answer("make kubo", lambda: fetch(home_url))


if __name__ == "__main__":
    sys.exit(main())
