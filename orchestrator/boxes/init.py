"""The first process of a box: prepares it, then holds it open until its lifeline is cut.

Run by path as PID 1 inside fresh namespaces. Standard library only, and without site packages.
"""

import json
import os
import signal
import socket
import subprocess
import sys

STEPS = {
    "mounting /proc": "mount -t proc proc /proc",
    "mounting a tmpfs on /run": "mount -t tmpfs -o mode=755 tmpfs /run",
    "switching IPv6 off": "f=/proc/sys/net/ipv6/conf/all/disable_ipv6; [ ! -e $f ] || echo 1 > $f",
    "bringing up the loopback interface": "ip link set lo up",
}


def prepare() -> dict[str, object]:
    """Go through the steps; the answer says our PID as the orchestrator sees it, or which step failed."""
    # The old /proc is still mounted, and it speaks the orchestrator's numbers.
    pid = int(os.readlink("/proc/self"))
    for step, command in STEPS.items():
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            return {"step": step, "error": done.stderr.strip()}
    socket.sethostname("shoal")
    return {"pid": pid}


def main(lifeline: int, answer: int) -> int:
    """Prepare, answer, and wait for the end of the orchestrator."""
    answered = prepare()
    os.write(answer, json.dumps(answered).encode() + b"\n")
    os.close(answer)
    if "pid" not in answered:
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # The kernel then reaps what our orphans leave.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while os.read(lifeline, 1):
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
