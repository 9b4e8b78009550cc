"""What must be known of nodes and data before a fleet starts: identities, engines, and CIDs of the shards.

    python -m node.prepare REQUEST.json    → one JSON object on standard output

REQUEST: {"nodes": {name: {"folder", "engine": auto|kubo|embedded, "data_address", "transport"}},
          "swarm_key_file": path, "files": [path, …]}
The answer: {"nodes": {name: {"engine", "engine_path", "version", "peer_id"}},
             "files": {path: {"cid", "size_bytes"}}}
"""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from node.contract import ExitCode, ShoalError
from node.contract.schema import from_json
from node.ipfs.cid import FileHasher
from node.ipfs.config import Settings
from node.ipfs.daemon import Daemon
from node.ipfs.engine import Engine, find

READ_BYTES = 1 << 20


@dataclass(frozen=True)
class NodeRequest:
    folder: str
    engine: Literal["auto", "kubo", "embedded"]
    data_address: str
    transport: str


@dataclass(frozen=True)
class Request:
    nodes: dict[str, NodeRequest]
    swarm_key_file: str
    files: tuple[str, ...]


def prepare(request: Request) -> dict[str, Any]:
    """Make every node's repository and name every file as IPFS will."""
    key = Path(request.swarm_key_file).read_text().strip()
    engines = {choice: find(choice) for choice in sorted({n.engine for n in request.nodes.values()})}
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda n: make_node(n, engines[n.engine], key), request.nodes.values())
        nodes = dict(zip(request.nodes, made, strict=True))
    return {"nodes": nodes, "files": {file: name_file(Path(file)) for file in request.files}}


def make_node(asked: NodeRequest, engine: Engine, key: str) -> dict[str, str]:
    settings = Settings(data_address=asked.data_address, transport=asked.transport)
    peer_id = Daemon(engine, Path(asked.folder), settings, key).prepare()
    return {
        "engine": engine.name,
        "engine_path": str(engine.path),
        "version": engine.version,
        "peer_id": peer_id,
    }


def name_file(file: Path) -> dict[str, Any]:
    hasher = FileHasher()
    with file.open("rb") as stream:
        while piece := stream.read(READ_BYTES):
            hasher.update(piece)
    return {"cid": str(hasher.cid()), "size_bytes": file.stat().st_size}


def main() -> int:
    try:
        request = from_json(Request, json.loads(Path(sys.argv[1]).read_text()))
        print(json.dumps(prepare(request)))
    except ShoalError as err:
        print(err, file=sys.stderr)
        return int(err.exit_code)
    return int(ExitCode.HELD)


if __name__ == "__main__":
    sys.exit(main())
