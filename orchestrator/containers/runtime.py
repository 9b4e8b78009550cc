"""What a node's parts take of memory before they have done anything: measured once for each image.

In a box all nodes share these pages with the zygote, and a class' memory comes on top of them. Containers
share none, so as much is added to their limits. Only what is no file's is meant: pages of libraries are
shared in any case, charged to whoever has read them first, and taken back before the kernel kills.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from docker import DockerClient

from node.contract.plan import NodePlan
from orchestrator.containers import errand
from orchestrator.containers.dockerd import told
from orchestrator.containers.errand import Errand
from orchestrator.setup import cache_folder

NOBODY: Final = "65534:65534"
SUPERVISOR: Final = "node.__main__"
# By part, what its process has imported when its work begins. Of the daemon nothing: no box shares it either.
IMPORTS: Final[Mapping[str, Sequence[str]]] = {
    "ipfs": (SUPERVISOR,),
    "trainer": (SUPERVISOR, "node.learning.tff", "node.role", "node.trainer"),
    "aggregator": (SUPERVISOR, "node.learning.tff", "node.role", "aggregator.server"),
}
MEASURE: Final = """
import importlib, pathlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
words = pathlib.Path("/proc/self/status").read_text().split()
print(sum(int(words[words.index(kind) + 1]) for kind in ("RssAnon:", "RssShmem:")) * 1024)
"""


def measured(
    client: DockerClient, image: str, labels: Mapping[str, str], parts: Collection[str]
) -> dict[str, int]:
    """Bytes by part: of fresh processes of this image, or what was measured of it before."""
    if not parts:
        return {}
    with told(f"the image {image}"):
        digest = str(client.images.get(image).id).removeprefix("sha256:")
    file = cache_folder() / "runtime" / f"{digest}.json"
    known: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    for part in sorted(set(parts) - known.keys()):
        known[part] = resident_bytes(client, image, labels, IMPORTS[part])
    file.parent.mkdir(parents=True, exist_ok=True)
    written = file.with_suffix(".part")
    written.write_text(json.dumps(known))
    written.replace(file)
    return {part: known[part] for part in sorted(parts)}


def parts(node: NodePlan) -> tuple[str, ...]:
    """Those of a node that a class limits, together."""
    return ("ipfs", *node.roles)


def resident_bytes(
    client: DockerClient, image: str, labels: Mapping[str, str], modules: Sequence[str]
) -> int:
    """Of one fresh process that has imported these and done nothing, without pages of files."""
    asked = Errand(["python3", "-c", MEASURE, *modules], user=NOBODY)
    return int(errand.answer(client, image, labels, asked))


def of_node(node: NodePlan, runtime_bytes: Mapping[str, int]) -> int:
    """All that a node's limited parts take before they have done anything."""
    return sum(runtime_bytes.get(part, 0) for part in parts(node))
