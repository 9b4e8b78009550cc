"""Run tests on a kernel that has netem: a guest of qemu, without hardware virtualisation, on this host's own files.

python -m tests.netem.guest [--or-skip] [--timeout SECONDS] [PYTEST ARGUMENTS]
    default: what is marked as differing by the kernel: links with netem, told by their owner and by agents; limits,
    since a guest has cgroup v2. The rest of these files passes through the same rules and queues on every kernel.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from node.contract import ENV_BOX, ExitCode, HostError, ShoalError
from node.ipfs.cache import TOP
from orchestrator import host, process
from tests.netem import initramfs, parts

ENV_SLOW_GUEST = "SHOAL_SLOW_GUEST"  # set to 1 in the guest, which carries little and has netem for certain
DEFAULT_TESTS = (
    *(f"tests/links/test_{of}.py" for of in ("netem_links", "links", "agent_links")),
    "tests/box/test_limits.py",
)
BY_KERNEL = ("-m", "by_kernel and not long")
RUN_OUTSIDE_A_BOX = ("tests/box", "tests/unit")  # the guest is a box; these open their own, or need none
NO_TESTS = 5  # pytest's own status, of a `-k` that fits nothing in one of the calls
TIMEOUT_S = 900.0
MEMORY_MB = 1536
# The processor's counter ticks alike for both of the guest's processors, only the kernel cannot know it; its
# second choice is a clock that costs thirty times as much to read.
KERNEL_ARGUMENTS = "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off"
LAST_LINES = 30


def run_tests(arguments: Sequence[str], timeout_s: float) -> int:
    """Boot, run pytest with these arguments, and return its status."""
    qemu, guest = parts.bring()
    parts.say(
        f"booting Linux {guest.release} in qemu; everything in it is ten to twenty times slower than here"
    )
    with tempfile.TemporaryDirectory(prefix="shoal-netem-") as name:
        share = Path(name)
        (share / "modules.sh").write_text(f"MODULES={shlex.quote(str(guest.modules))}\n")
        (share / "command.sh").write_text(command(arguments))
        (share / "initramfs").write_bytes(archive_for(guest))
        status = boot(qemu, guest.kernel, share, timeout_s)
        try:
            return int((share / "status").read_text())
        except FileNotFoundError:
            console = (share / "console").read_text(errors="replace").splitlines()
            how = "ended early" if status is not None else f"did not end within {timeout_s:g} s (--timeout)"
            raise ShoalError(
                f"The guest {how}.", "\n  ".join(["its console said:", *console[-LAST_LINES:]])
            ) from None


def archive_for(guest: parts.Guest) -> bytes:
    """The guest's first file system."""
    init = Path(__file__).with_name("init.sh").read_text()
    return initramfs.build(init, guest.busybox.read_bytes(), guest.modules)


def boot(qemu: parts.Qemu, kernel: Path, share: Path, timeout_s: float) -> int | None:
    """Let the guest run to its end, its second serial line on our own output; None if it had to be ended."""
    with (share / "console").open("wb") as console:
        started = process.start(
            # It ends with us, however we end.
            ["setpriv", "--pdeathsig", "KILL", "--", *qemu_command(qemu, kernel, share)],
            stdout=None,
            stderr=console,
            env=qemu.environment,
        )
    try:
        return started.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if started.poll() is None:
            started.kill()
            started.wait()


def qemu_command(qemu: parts.Qemu, kernel: Path, share: Path) -> list[str]:
    """A machine with two processors, two serial lines, the host's files and one folder to write to."""
    return [
        str(qemu.binary),
        *qemu.arguments,
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", str(MEMORY_MB)),
        *("-nodefaults", "-display", "none", "-no-reboot"),
        *("-kernel", str(kernel), "-initrd", str(share / "initramfs"), "-append", KERNEL_ARGUMENTS),
        *("-chardev", f"file,id=console,path={share / 'console'},append=on", "-serial", "chardev:console"),
        *("-chardev", "stdio,id=said,signal=off", "-serial", "chardev:said"),
        *("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
        *("-fsdev", f"local,id=share,path={share},security_model=none"),
        *("-device", "virtio-9p-pci,fsdev=share,mount_tag=share"),
    ]


def parted(arguments: Sequence[str]) -> list[tuple[list[str], dict[str, str]]]:
    """The calls of pytest, with what each finds in its environment: as in a box, or to open its own."""
    outside = [argument for argument in arguments if argument.startswith(RUN_OUTSIDE_A_BOX)]
    inside = [argument for argument in arguments if argument not in outside]
    options = [argument for argument in inside if not is_path(argument)]
    calls = [(inside, environment(is_inside=True))] if inside != options else []
    return calls + ([([*outside, *options], environment(is_inside=False))] if outside else [])


def is_path(argument: str) -> bool:
    return not argument.startswith("-") and (TOP / argument.partition("::")[0]).exists()


def environment(*, is_inside: bool) -> dict[str, str]:
    return {
        "PATH": host.search_path(),
        "HOME": "/run",
        "LANG": "C.UTF-8",
        "COLUMNS": str(shutil.get_terminal_size().columns),
        "PY_COLORS": "1" if sys.stdout.isatty() else "0",
        ENV_SLOW_GUEST: "1",
        **({ENV_BOX: "1"} if is_inside else {}),
    }


def command(arguments: Sequence[str]) -> str:
    """The script that ends the guest's start: what a box's first process does, then pytest."""
    # The environment's Python by its place, not sys.executable: that may be a link's target.
    pytest = [str(TOP / ".venv/bin/python"), "-m", "pytest", "-p", "no:cacheprovider"]
    calls = "\n".join(
        shlex.join(
            ["call", "env", "-i", *(f"{name}={value}" for name, value in variables.items()), *pytest, *words]
        )
        for words, variables in parted(arguments)
    )
    return f"""\
exec < /dev/null > /dev/ttyS1 2>&1
/run/busybox stty -F /dev/ttyS1 -opost
ip link set lo up
echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6
cd {shlex.quote(str(TOP))}
worst={NO_TESTS}
call() {{
    status=0
    "$@" || status=$?
    if [ "$status" -eq 0 ] && [ "$worst" -eq {NO_TESTS} ]; then worst=0; fi
    if [ "$status" -ne 0 ] && [ "$status" -ne {NO_TESTS} ]; then worst=$status; fi
}}
{calls}
echo "$worst" > /run/shoal-guest/status.part
mv /run/shoal-guest/status.part /run/shoal-guest/status
/run/busybox poweroff -f
"""


def main(argv: Sequence[str]) -> int:
    """The command line; unknown arguments are pytest's."""
    parser = argparse.ArgumentParser(prog="netem", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--or-skip", action="store_true", help="where the guest is not to be had, say so and succeed"
    )
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="SECONDS")
    ours, arguments = parser.parse_known_args(argv)
    if not any(map(is_path, arguments)):
        arguments = [*DEFAULT_TESTS, *BY_KERNEL, *arguments]
    try:
        return run_tests(arguments, ours.timeout)
    except HostError as error:
        if not ours.or_skip:
            print(f"netem: {error}", file=sys.stderr)
            return error.exit_code
        print(
            f"SKIPPED the tests on a kernel with netem: {error.message} To get it: {error.hint}",
            file=sys.stderr,
        )
        return ExitCode.HELD
    except ShoalError as error:
        print(f"netem: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
