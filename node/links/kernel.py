"""The kernel of a node: it is told by tc, ip and iptables, and asked what it has."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from node.contract import HostError
from node.links import cuts, readback, ways
from node.links.cuts import KernelRules
from node.links.readback import KernelTree
from node.links.tree import DATA, IFB
from node.links.ways import Way

COMMAND_S: Final = 20.0
DISCARD_PORT: Final = 9
NO_OTHERS: Final[Mapping[str, Way]] = MappingProxyType({})
SHOW_WAYS: Final = f"route show dev {DATA}"
AVAILABLE: Final = Path("/proc/sys/net/ipv4/tcp_available_congestion_control")


class Kernel:
    """All calls are made from within the node's namespace, as its root."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()  # commands start in it: tc finds distributions there
        # The older iptables locks one file for all; a node that waits for its moment must not hold up others.
        self._env = {**os.environ, "XTABLES_LOCKFILE": str(self._folder / "xtables.lock"), "LC_ALL": "C"}

    def batch(self, lines: Sequence[str]) -> None:
        """Tell tc all of these lines at once."""
        if lines:
            self.run(["tc", "-batch", "-"], "\n".join(lines) + "\n")

    def tree(self, device: str, handle: str) -> KernelTree:
        """What a device has; empty when there is no such device."""
        if not self.has(device):
            return KernelTree()
        # By one process, since a watch asks again and again; what hangs on nothing is shown as an empty list.
        lines = [
            f"qdisc show dev {device}",
            f"class show dev {device}",
            f"filter show dev {device} parent {handle}:",
            f"filter show dev {device} ingress",
        ]
        shown = self.run(["tc", "-j", "-s", "-batch", "-"], "\n".join(lines) + "\n").splitlines()
        if len(shown) < 3 or not all(line.startswith("[") for line in (shown[0], *shown[-2:])):
            raise HostError(f"tc shows {device} in a way that is not known: {' '.join(shown)[:200]}")
        qdiscs, *classes, filters, incoming = shown
        if any(line.startswith("[") for line in classes):  # as later versions of tc show them; we read text
            classes = self.run(["tc", "-s", "class", "show", "dev", device]).splitlines()
        return readback.kernel_tree(qdiscs, "\n".join(classes), filters, incoming)

    def has(self, device: str) -> bool:
        """Whether there is such an interface."""
        return any(name == device for _, name in socket.if_nameindex())

    def interface(self, name: str) -> Mapping[str, Any] | None:
        """As `ip` shows it; None when there is no such interface, which is not the same as not knowing."""
        shown = json.loads(self.run(["ip", "-j", "-d", "link", "show"]) or "[]")
        return next((one for one in shown if one.get("ifname") == name), None)

    def add_ifb(self) -> None:
        self.run(["ip", "link", "add", IFB, "type", "ifb"])
        self.run(["ip", "link", "set", IFB, "up"])

    def set_way(
        self, subnet: str, address: str, algorithm: str, others: Mapping[str, Way] = NO_OTHERS
    ) -> None:
        """What all packets have in common, and `others`, by address: who is sent to in another way.

        One segment in each: loss and queues count packets of a real line's size. Congestion control by
        route: the sysctl refuses what the host restricts.
        """
        route = f"route replace {subnet} dev {DATA} src {address} congctl lock {algorithm}"
        lines = [f"link set dev {DATA} gso_max_segs 1", route, *ways.put(DATA, address, others)]
        try:
            shown = self.run(["ip", "-j", "-batch", "-"], "\n".join([*lines, SHOW_WAYS, ""]))
            if gone := ways.remove(DATA, others, ways.seen(shown)):
                self.run(["ip", "-batch", "-"], "\n".join([*gone, ""]))
        except HostError as error:
            known = AVAILABLE.read_text().split()
            if algorithm in known:
                raise HostError(f"the way to {subnet} cannot be set: {error.message}") from error
            raise HostError(
                f"there is no congestion control {algorithm} in this kernel: {error.message}",
                f"choose one of those that are loaded: {', '.join(known)}",
            ) from error

    def ways(self) -> Mapping[str, Way]:
        """By address: who is sent to in another way than the rest of the subnet."""
        return ways.seen(self.run(["ip", "-j", *SHOW_WAYS.split()]))

    def congestion_control(self, peer_address: str) -> str:
        """What a socket towards a peer really uses; it is known once the socket has a route."""
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setblocking(False)
            failed = probe.connect_ex((peer_address, DISCARD_PORT))
            if failed not in (0, errno.EINPROGRESS, errno.ECONNREFUSED):
                raise HostError(f"there is no way to {peer_address}: {os.strerror(failed)}")
            return probe.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode()

    def rules(self) -> KernelRules:
        return cuts.parse(self.run(["iptables-save", "-c"]))

    def restore(self, script: str) -> None:
        """Put rules in force now."""
        self.arm(script).fire()

    def arm(self, script: str) -> Armed:
        """Rules that are read and ready, and take effect when told."""
        return Armed(script, self._env)

    def run(self, argv: Sequence[str], input_text: str = "") -> str:
        """What a command says; HostError with its own words when it fails."""
        try:
            done = subprocess.run(
                argv,
                input=input_text,
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                env=self._env,
                cwd=self._folder,
                check=False,
            )
        except FileNotFoundError as error:
            raise HostError(f"{error.filename} is missing", "install iproute2 and iptables") from error
        except subprocess.TimeoutExpired as error:
            raise HostError(f"{' '.join(argv)} did not end within {COMMAND_S:g} s") from error
        if done.returncode != 0:
            raise HostError(f"{' '.join(argv)}: {_words(done.stderr, input_text)}")
        return done.stdout


class Armed:
    """An iptables-restore that has read all but its last line."""

    def __init__(self, script: str, env: Mapping[str, str]) -> None:
        self._script = script
        # A socket, not a pipe: its end is told whoever was forked meanwhile and still holds a copy.
        self._link, far = socket.socketpair()
        try:
            with far:
                self._process = subprocess.Popen(
                    ["iptables-restore", "--noflush", "-w"],
                    stdin=far.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    text=True,
                    env=dict(env),
                )
        except FileNotFoundError as error:
            self._link.close()
            raise HostError("iptables-restore is missing", "install iptables") from error
        self.pid = self._process.pid
        self._link.settimeout(COMMAND_S)
        with contextlib.suppress(ConnectionError):  # it has ended; fire tells why
            self._link.sendall(script.encode())

    def fire(self) -> int:
        """Put it in force; the monotonic instant in nanoseconds at which it was."""
        with contextlib.suppress(ConnectionError):
            self._link.sendall(b"COMMIT\n")
            self._link.shutdown(socket.SHUT_WR)
        try:
            _, complaint = self._process.communicate(timeout=COMMAND_S)
        except subprocess.TimeoutExpired:
            self.drop()
            raise HostError(f"iptables-restore did not end within {COMMAND_S:g} s") from None
        effective_mono_ns = time.monotonic_ns()
        self._link.close()
        if self._process.returncode != 0:
            raise HostError(f"iptables-restore: {_words(complaint, self._script)}")
        return effective_mono_ns

    def drop(self) -> None:
        """Let it go without effect; nothing when it has ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self._link.close()


def _words(complaint: str, script: str) -> str:
    """The kernel's words, and the line that they are about where the command names it."""
    said = " ".join(complaint.split()) or "it failed without a word"
    for marker in ("Command failed -:", "line "):
        _, found, rest = said.partition(marker)
        digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
        lines = script.splitlines()
        if found and digits and 0 < int(digits) <= len(lines):
            return f"{said} (that line is: {lines[int(digits) - 1]})"
    return said
