"""What the guest is told to run, and what becomes of a host that has none."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from node.contract import ENV_BOX, ExitCode, HostError
from orchestrator import process
from tests.netem import guest, parts


def test_tests_run_as_if_in_a_box_except_those_that_open_their_own() -> None:
    (first, inside), (second, outside) = guest.parted(
        ["-x", "tests/box/test_limits.py", "tests/links", "-k", "a"]
    )
    assert (first, inside[ENV_BOX]) == (["-x", "tests/links", "-k", "a"], "1")
    assert (second, outside.get(ENV_BOX)) == (["tests/box/test_limits.py", "-x", "-k", "a"], None)
    assert len(guest.parted(["tests/links/test_links.py::test_a_rate"])) == 1
    assert len(guest.parted(["-x", "tests/box"])) == 1
    calls = guest.parted([*guest.DEFAULT_TESTS, *guest.BY_KERNEL])
    assert [words[-2:] for words, _ in calls] == [["-m", "by_kernel and not long"]] * 2


def test_the_script_tells_the_status_whole_and_turns_off() -> None:
    script = guest.command(["tests/links", "-k", "it's one"])
    pytest_line = next(line for line in script.splitlines() if "pytest" in line)
    assert shlex.split(pytest_line)[-3:] == ["tests/links", "-k", "it's one"]
    assert f"{ENV_BOX}=1" in shlex.split(pytest_line)
    # The status right after pytest, under its name only when it is complete.
    after = script[script.index(pytest_line) + len(pytest_line) :].split("\n")
    assert after[1].startswith('echo "$worst" >')
    assert after[2].endswith("/status")
    assert after[3].endswith("poweroff -f")


@pytest.mark.parametrize(
    ("statuses", "worst"),
    [([0, 0], 0), ([1, 0], 1), ([0, 1], 1), ([0, 5], 0), ([5, 0], 0), ([5, 5], 5), ([5, 2], 2)],
)
def test_the_worst_of_several_calls_counts(tmp_path: Path, statuses: list[int], worst: int) -> None:
    script = guest.command(["tests/links"])
    counting = script[script.index("worst=") : script.index("}\n") + 2]
    calls = "".join(f"call sh -c 'exit {status}'\n" for status in statuses)
    done = process.run(["sh", "-ec", f'{counting}{calls}echo "$worst"'], timeout_s=20)
    assert int(done.stdout) == worst


def test_qemu_has_no_network_and_may_write_to_one_folder_alone() -> None:
    words = guest.qemu_command(parts.Qemu(Path("/q"), ("-L", "/l")), Path("/k"), Path("/share"))
    assert "-nodefaults" in words
    assert not [word for word in words if "netdev" in word or "-nic" in word]
    folders = [word for word in words if word.startswith("local,")]
    assert [("readonly=on" in word, word.split(",")[2]) for word in folders] == [
        (True, "path=/"),
        (False, "path=/share"),
    ]


def nothing_to_be_had() -> tuple[parts.Qemu, parts.Guest]:
    raise HostError("No apt-get here.", "run it on a Debian")


@pytest.mark.parametrize(("arguments", "status"), [([], ExitCode.HOST), (["--or-skip"], ExitCode.HELD)])
def test_a_host_without_a_guest_fails_alone_and_is_skipped_among_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int
) -> None:
    monkeypatch.setattr(parts, "bring", nothing_to_be_had)
    assert guest.main(arguments) == status
    said = capsys.readouterr().err
    assert "No apt-get here." in said
    assert "run it on a Debian" in said
    assert ("SKIPPED" in said) is bool(arguments)


def test_a_guest_that_never_answers_is_ended_and_its_console_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    qemu = tmp_path / "qemu"
    qemu.write_text('#!/bin/sh\necho "Kernel panic" >&2\nexec sleep 1000\n')
    qemu.chmod(0o755)
    found = parts.Qemu(qemu), parts.Guest(tmp_path, tmp_path, tmp_path)
    monkeypatch.setattr(parts, "bring", lambda: found)
    monkeypatch.setattr(guest, "archive_for", lambda _: b"")
    assert guest.main(["--timeout", "0.5"]) == ExitCode.BUG
    said = capsys.readouterr().err
    assert "did not end within 0.5 s" in said
    assert "Kernel panic" in said
