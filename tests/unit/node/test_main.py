"""What the command lines of a node and of the zygote say about wrong files."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.__main__ import main, read_settings
from node.contract import ExitCode, UsageError
from node.zygote import main as zygote_main


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
