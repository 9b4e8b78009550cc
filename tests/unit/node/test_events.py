from __future__ import annotations

import json
import os
import resource
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import HostError
from node.events import Events, read_from
from node.fork import fork


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_an_event_has_its_stamp_and_its_keys(tmp_path: Path) -> None:
    Events(tmp_path / "e", "w1").write("update_answered", round=3, accepted=True, reason=None)
    (event,) = lines(tmp_path / "e")
    assert set(event) == {"kind", "node", "wall", "mono_ns", "round", "accepted", "reason"}
    assert (event["kind"], event["node"], event["round"]) == ("update_answered", "w1", 3)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("update_answerd", {}),
        ("part_ended", {"part": "ipfs", "status": 0}),
        ("part_ended", {"part": "ipfs", "status": 0, "expected": True, "more": 1}),
    ],
)
def test_what_the_table_does_not_name_is_refused(
    tmp_path: Path, kind: str, fields: dict[str, object]
) -> None:
    with pytest.raises(ValueError, match=r"known are|missing keys"):
        Events(tmp_path / "e", "w1").write(kind, **fields)
    assert not (tmp_path / "e").exists()


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    Events(tmp_path / "e", "w1").write("all_ready", trainers=[float("nan"), {"a": float("inf")}, 1.5])
    assert lines(tmp_path / "e")[0]["trainers"] == [None, {"a": None}, 1.5]


def write_many(path: Path, node: str) -> int:
    events = Events(path, node)
    for number in range(200):
        events.write("shards_added", count=number, bytes="x" * 300)
    return 0


def test_two_processes_keep_their_lines_whole(tmp_path: Path) -> None:
    writers = [fork(partial(write_many, tmp_path / "e", name)) for name in ("a", "b")]
    assert [os.waitpid(writer.pid, 0)[1] for writer in writers] == [0, 0]
    written = lines(tmp_path / "e")
    for name in ("a", "b"):
        assert [e["count"] for e in written if e["node"] == name] == list(range(200))


def test_a_full_disk_leaves_no_half_line(tmp_path: Path) -> None:
    """A limit on the file's size cuts the write as a full disk does; in a child, because it stays."""
    path = tmp_path / "e"
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            events = Events(path, "w1")
            events.write("all_ready", trainers=[])
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20,) * 2)
            try:
                events.write("all_ready", trainers=["x"])
            except HostError as error:
                status = 0 if "free some space" in error.hint else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert [e["trainers"] for e in lines(path)] == [[]]


def test_half_a_line_is_not_given_out(tmp_path: Path) -> None:
    (tmp_path / "e").write_bytes(b"one\ntwo\nthr")
    assert read_from(tmp_path / "e", 0) == (b"one\ntwo\n", 8)
    assert read_from(tmp_path / "e", 8) == (b"", 8)
    assert read_from(tmp_path / "e", 99) == (b"", 99)
    assert read_from(tmp_path / "none", 5) == (b"", 5)


@given(st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"-") + b"\n")), st.integers(1, 9))
def test_pieces_of_any_size_make_up_the_whole(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], max_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("events") / "e"
    path.write_bytes(b"".join(parts))
    got, offset = [], 0
    while True:
        piece, offset = read_from(path, offset, max_bytes)
        if not piece:
            break
        assert piece.endswith(b"\n")
        got.append(piece)
    assert b"".join(got) == b"".join(parts)
