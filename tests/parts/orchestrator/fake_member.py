"""A strict stand-in for `python -m node.ipfs.exercise`: it refuses whatever the protocol does not say.

The first argument is what it does wrong: nothing, or one of the words below.
"""

import json
import sys
from typing import Any

KEYS = {"name", "engine", "transport", "data_address", "swarm_key", "folder", "object_bytes"}


def say(**event: object) -> None:
    print(json.dumps(event), flush=True)


def hear(keys: set[str]) -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    order: dict[str, Any] = json.loads(line)
    assert set(order) == keys, f"expected {sorted(keys)}, got {sorted(order)}"
    return order


def main(wrong: str) -> int:
    order = hear(KEYS)
    name, size = order["name"], order["object_bytes"]
    assert len(bytes.fromhex(order["swarm_key"])) == 32
    if name == "w2" and wrong == "host":
        say(event="failed", message="no engine", hint="make ipfs")
        return 69
    if name == "w2" and wrong == "dies":
        print("a last word", file=sys.stderr)
        return 3
    if name == "w2" and wrong == "babbles":
        print("hello")
        return 0
    say(event="ready", engine="fake", version="1", peer_id=f"id-{name}", address=f"/{name}", start_ms=1.0)
    peers = hear({"peers"})["peers"]
    assert all(set(peer) == {"name", "peer_id", "address"} for peer in peers)
    if name == "w2" and wrong == "silent":
        sys.stdin.read()
        return 0
    say(event="added", cid=f"cid-{name}", size_bytes=size, add_ms=1.0)
    objects = hear({"objects"})["objects"]
    assert {o["name"] for o in objects} == {peer["name"] for peer in peers}
    for o in objects:
        cid = "cid-other" if name == "w2" and wrong == "cid" else o["cid"]
        say(event="fetched", name=o["name"], cid=cid, size_bytes=o["size_bytes"], ms=2.0)
        if not (name == "w2" and wrong == "tunnel"):
            say(event="tunnelled", name=o["name"], round_trip_ms=3.0, asker_verified=wrong != "stranger")
    say(event="done", bytes_received=size, duplicate_bytes=0, resident_bytes=4096)
    assert sys.stdin.read() == ""
    return 4 if name == "w2" and wrong == "late" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
