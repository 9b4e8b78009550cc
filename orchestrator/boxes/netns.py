"""The `netns` driver: a fleet as network namespaces of one box, without root and without Docker."""

from __future__ import annotations

import ipaddress
import json
import os
import queue
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from node.contract import ExitCode, HostError, ShoalError
from node.contract.plan import Plan
from orchestrator import TOP
from orchestrator.boxes import trunks
from orchestrator.boxes.box import Box, Node
from orchestrator.boxes.limits import Limits
from orchestrator.gate import Gate
from orchestrator.process import Process
from orchestrator.transport import MOST_BYTES, SYSCTLS

DATA, CTL = "data", "ctl"
ZYGOTE_TIMEOUT_S = 180.0  # it imports TensorFlow Federated
GATE_TIMEOUT_S = 20.0
FORK_TIMEOUT_S = 30.0
NETWORK_TIMEOUT_S = 60.0
ZYGOTE_END_S = 5.0


class NetnsFleet:
    """The nodes of a plan, brought to life in a box; they end with it."""

    def __init__(
        self,
        box: Box,
        plan: Plan,
        secrets: Path,
        logs: Path,
        node_ended: Callable[[str, int], None],
        limits: Limits | None = None,
        zygote_ended: Callable[[str, int], None] | None = None,
    ) -> None:
        self._box, self._plan, self._secrets, self._logs, self._limits = box, plan, secrets, logs, limits
        self._temporary = secrets / "tmp"  # TensorFlow leaves files behind in its own
        self._temporary.mkdir()
        self._node_ended = node_ended
        self._zygote_ended = zygote_ended  # of each node that ends with it
        self.nodes: dict[str, Node] = {}
        self.gate = Gate(secrets / "gate.sock")
        self._importing: queue.Queue[bytes] = queue.Queue()
        self._zygote_process: Process | None = None
        self._zygote: socket.socket | None = None
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        self._forked: set[str] = set()
        self._forking = threading.Lock()  # the zygote answers in the order in which it is asked
        self._told = threading.Condition()  # held while it is changed who is forked
        self._expected: set[str] = set()  # nodes that are to end
        # More daemons than cores: more threads in each would only look for work and find none.
        self._threads = max(1, (os.cpu_count() or 1) // len(plan.nodes))
        self._leaving = threading.Event()

    def build_network(self) -> None:
        """Bridges, nodes, and the box's own address on `ctl`, for the gate and Prometheus."""
        network = self._plan.network
        for bridge in (DATA, CTL):
            self._box.add_bridge(bridge)
        data = ipaddress.ip_network(network.data_subnet)
        ctl = ipaddress.ip_network(network.ctl_subnet)
        own = ctl[-2]
        if any(node.ctl_address == str(own) for node in self._plan.nodes):
            raise ShoalError(f"the plan gives a node {own}, which is the gate's", "this is a mistake of ours")
        self._box.run(
            ["ip", "address", "add", f"{own}/{ctl.prefixlen}", "dev", CTL], timeout_s=NETWORK_TIMEOUT_S
        )
        settings = "\n".join(
            f"[ ! -e /proc/sys/net/ipv4/{name} ] || echo {value} > /proc/sys/net/ipv4/{name}"
            for name, value in SYSCTLS[network.transport].items()
        )
        rooms = "\n".join(
            f"set -- $(cat /proc/sys/net/ipv4/{name})\n"
            f'[ "$3" -ge {most} ] || echo "$1 $2 {most}" > /proc/sys/net/ipv4/{name}'
            for name, most in MOST_BYTES.items()
        )
        for planned in self._plan.nodes:
            node = self._box.add_node(
                planned.name,
                {
                    DATA: f"{planned.data_address}/{data.prefixlen}",
                    CTL: f"{planned.ctl_address}/{ctl.prefixlen}",
                },
            )
            # One segment in a packet, so that an interface's counters are those of a real line.
            pinned = f"src {planned.data_address} congctl lock {network.congestion_control}"
            route = f"ip route replace {data} dev {DATA} {pinned}"
            script = f"ip link set dev {DATA} gso_max_segs 1\n{route}\n{settings}\n{rooms}\n"
            node.run(["sh", "-e"], input_text=script, timeout_s=NETWORK_TIMEOUT_S)
            self.nodes[planned.name] = node
        lay_trunks(self._box, self._plan)

    def start_gate(self) -> None:
        _, lines = self._begin("gate", [sys.executable, "-m", "orchestrator.gate", str(self.gate.path)])
        self._wait_ready("gate", lines, GATE_TIMEOUT_S)

    def begin_zygote(self, *modules: str) -> None:
        """Begin the one import for the whole fleet: of these, else of TensorFlow Federated."""
        imports = [word for module in modules for word in ("--import", module)]
        path = self._secrets / "zygote.sock"
        argv = [sys.executable, "-m", "node.zygote", str(path), *imports]
        self._zygote_process, self._importing = self._begin("zygote", argv)

    def wait_zygote(self, timeout_s: float = ZYGOTE_TIMEOUT_S) -> None:
        """Until it has imported and takes orders."""
        self._wait_ready("zygote", self._importing, timeout_s)
        self._zygote = socket.socket(socket.AF_UNIX)
        self._zygote.connect(str(self._secrets / "zygote.sock"))
        threading.Thread(target=self._hear_zygote, args=(self._zygote.makefile("rb"),), daemon=True).start()

    def start_node(self, name: str, settings: Path, parts: Sequence[str] | None = None) -> dict[str, Any]:
        """Fork a node's processes, or some of them; PID and start time, as the box counts them."""
        if self._zygote is None:
            raise ShoalError("the zygote was not started", "this is a mistake of ours")
        groups = self._limits.groups(name) if self._limits else []
        asked = {"settings": str(settings), "node": name, "groups": groups, "parts": parts}
        with self._forking:
            return self._ask_zygote(name, asked)

    def _ask_zygote(self, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        assert self._zygote is not None
        try:
            self._zygote.sendall((json.dumps(asked) + "\n").encode())
        except OSError as error:
            raise ShoalError(f"node {name} was not forked: {error}; {self._tail('zygote')}") from None
        try:
            answer = self._answers.get(timeout=FORK_TIMEOUT_S)
        except queue.Empty:
            raise ShoalError(f"node {name} was not forked; {self._tail('zygote')}") from None
        if "error" in answer:
            raise ShoalError(f"node {name} was not forked: {answer['error']}")
        return answer

    def is_forked(self, name: str) -> bool:
        """Whether the node's first process lives, as far as the zygote has told."""
        with self._told:
            return name in self._forked

    def expect_end(self, name: str) -> None:
        """The node is about to end, and is not lost by that."""
        with self._told:
            self._expected.add(name)

    def expect_life(self, name: str) -> None:
        """Whoever was about to end it could not: an end of its own is a loss again."""
        with self._told:
            self._expected.discard(name)

    def wait_ended(self, name: str, timeout_s: float) -> bool:
        """Until the node's first process has ended; whether it has."""
        with self._told:
            return self._told.wait_for(lambda: name not in self._forked, timeout_s)

    def leave(self) -> None:
        """What ends from now on ends because the box does."""
        self._leaving.set()

    def start_prometheus(self, argv: Sequence[str]) -> None:
        self._process("prometheus", argv)

    def get(
        self, name: str, port: int, path: str, headers: Mapping[str, str], timeout_s: float
    ) -> tuple[bytes, Mapping[str, str]]:
        """A page of a node's, by its address on `ctl`."""
        return self.ask(name, port, "GET", path, None, headers, timeout_s)

    def ask(
        self,
        name: str,
        port: int,
        method: str,
        path: str,
        body: bytes | None,
        headers: Mapping[str, str],
        timeout_s: float,
    ) -> tuple[bytes, Mapping[str, str]]:
        """One HTTP request to a node, by its address on `ctl`."""
        there = self.nodes[name].address(CTL)
        return self.gate.ask(there, port, method, path, body, headers=headers, timeout_s=timeout_s)

    def _hear_zygote(self, stream: Any) -> None:
        for line in stream:
            said = json.loads(line)
            if "exited" in said:
                with self._told:
                    was_expected = said["exited"] in self._expected
                    self._expected.discard(said["exited"])
                    self._forked.discard(said["exited"])
                    self._told.notify_all()
                if not was_expected:
                    self._node_ended(said["exited"], said["status"])
            else:
                if "error" not in said:  # noted here, since its end may be the next line
                    with self._told:
                        self._forked.add(said["node"])
                self._answers.put(said)
        self._answers.put({"error": f"the zygote has ended; {self._tail('zygote')}"})
        if self._zygote_ended is not None and not self._leaving.is_set():
            status = self._zygote_status()
            for name in sorted(self._forked):  # they end with it, and nobody is left to tell of that
                self._zygote_ended(name, status)

    def _zygote_status(self) -> int:
        """What ended it, as far as it can be told."""
        assert self._zygote_process is not None
        try:
            return self._zygote_process.wait(ZYGOTE_END_S)
        except subprocess.TimeoutExpired:
            return int(ExitCode.BUG)  # it lives, and talks to us no more

    def _process(self, name: str, argv: Sequence[str], stdout: int | None = None) -> Process:
        path = os.pathsep.join(filter(None, [str(TOP), os.environ.get("PYTHONPATH")]))
        with (self._logs / f"{name}.log").open("ab") as log:
            return self._box.start(
                argv,
                stdout=log if stdout is None else stdout,
                stderr=log,
                env={"PYTHONPATH": path, "TMPDIR": str(self._temporary), "GOMAXPROCS": str(self._threads)},
            )

    def _begin(self, name: str, argv: Sequence[str]) -> tuple[Process, queue.Queue[bytes]]:
        """Start a process; it, and the lines that it says."""
        started = self._process(name, argv, stdout=subprocess.PIPE)
        lines: queue.Queue[bytes] = queue.Queue()
        stream = started.stdout
        assert stream is not None
        threading.Thread(target=_pass_on, args=(stream, lines), daemon=True).start()
        return started, lines

    def _wait_ready(self, name: str, lines: queue.Queue[bytes], timeout_s: float) -> None:
        """Until a process says `ready`."""
        try:
            said = lines.get(timeout=timeout_s)
        except queue.Empty:
            raise HostError(f"the {name} is not ready after {timeout_s:g} s; {self._tail(name)}") from None
        if said.strip() != b"ready":
            raise HostError(f"the {name} ended at its start; {self._tail(name)}")

    def _tail(self, name: str) -> str:
        file = self._logs / f"{name}.log"
        lines = file.read_text(errors="replace").splitlines()[-8:] if file.exists() else []
        return f"{file.name} ends:\n" + "\n".join(lines)


def lay_trunks(box: Box, plan: Plan) -> None:
    """The lines that zones share; read back."""
    if not trunks.device_lines(plan):
        return
    for program, lines in (("ip", trunks.device_lines(plan)), ("tc", trunks.traffic_lines(plan, DATA))):
        box.run([program, "-batch", "-"], input_text="\n".join(lines) + "\n", timeout_s=NETWORK_TIMEOUT_S)
    question = trunks.question(plan, DATA)
    trunks.check(plan, box.run(["sh"], input_text=question, timeout_s=NETWORK_TIMEOUT_S).stdout)


def _pass_on(stream: IO[bytes], lines: queue.Queue[bytes]) -> None:
    """Read to the end, so that whoever writes is never held up; an empty line marks it."""
    for line in stream:
        lines.put(line)
    lines.put(b"")
