"""Facts of the host that a reader of the results needs to know."""

from __future__ import annotations

import os
import platform
import re
from importlib import metadata
from pathlib import Path
from typing import Any

from orchestrator.boxes import cgroups

PACKAGES = ("tensorflow-cpu", "tensorflow-federated", "numpy", "aiohttp", "ipfshttpclient")


def host_facts() -> dict[str, Any]:
    """Kernel, CPU, memory and versions; what cannot be read is null."""
    cpu = read("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", cpu, re.MULTILINE)
    flags = re.search(r"^flags\s*: (.+)$", cpu, re.MULTILINE)
    memory = re.search(r"^MemTotal:\s*(\d+) kB$", read("/proc/meminfo"), re.MULTILINE)
    vector = [
        flag
        for flag in ("avx2", "avx512f", "avx512_vnni", "amx_tile")
        if flags and flag in flags.group(1).split()
    ]
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cpu": model and model.group(1),
        "cpu_vector_instructions": vector,
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": memory and int(memory.group(1)) * 1024,
        "load_1min": os.getloadavg()[0],
        "congestion_control": read("/proc/sys/net/ipv4/tcp_congestion_control").strip() or None,
        "tcp_rto_max_ms": Path("/proc/sys/net/ipv4/tcp_rto_max_ms").exists(),
        "limits": {kind: cgroups.told(found) for kind, found in cgroups.look().items()},
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS", "default"),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
