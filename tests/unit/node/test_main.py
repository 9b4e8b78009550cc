"""What the command lines of a node and of the zygote say about wrong files."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.__main__ import main, read_settings, wait_links
from node.contract import ExitCode, HostError, UsageError
from node.contract.links import LinkTable
from node.contract.settings import EVENTS_FILE
from node.events import Events
from node.zygote import main as zygote_main
from tests.settings import node_settings


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "s.json:1: no valid JSON"),
        ("{}", "s.json: run: this key is missing"),
        ('{"rum": 1}', "s.json: rum: unknown key"),
    ],
)
def test_wrong_settings_are_named_with_file_and_key(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "s.json").write_text(text)
    with pytest.raises(UsageError) as caught:
        read_settings(tmp_path / "s.json")
    assert complaint in caught.value.message


def test_missing_settings_are_a_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.json")]) == ExitCode.USAGE
    assert "none.json: No such file" in capsys.readouterr().err


def test_a_place_where_a_zygote_cannot_listen_is_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "z.sock"
    taken.touch()
    for path in (tmp_path / "no" / "z.sock", taken):
        assert zygote_main([str(path), "--import", "json"]) == ExitCode.USAGE
        assert f"cannot listen on {path}" in capsys.readouterr().err
    assert taken.exists()  # it is somebody else's


def test_parts_apart_from_their_agent_wait_for_the_links(tmp_path: Path) -> None:
    table = LinkTable("w01", "10.77.0.1", "10.77.0.0/22", None, None, ())
    settings = node_settings("w01", tmp_path, links=table)
    with pytest.raises(HostError, match="the links of w01 are not in force"):
        wait_links(settings, 0.0)
    telling = Events(tmp_path / EVENTS_FILE, "w01")
    telling.write("part_started", part="agent", pid=7, start_ticks=70)
    with pytest.raises(HostError, match="not in force"):
        wait_links(settings, 0.0)
    telling.write("links_applied", engine="none", peers=0, applied_ms=1.0, mismatches=())
    wait_links(settings, 0.0)


def test_where_no_links_are_asked_nothing_is_waited_for(tmp_path: Path) -> None:
    wait_links(node_settings("w01", tmp_path), 0.0)
