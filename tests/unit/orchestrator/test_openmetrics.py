from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from orchestrator.monitoring import openmetrics
from orchestrator.monitoring.prometheus import WRITERS, Format, Row

ROWS: list[Row] = [
    (1000, '{"node":"w01"}', 0.5),
    (2125, '{"node":"w01"}', float("inf")),
    (1500, json.dumps({"node": 'a "b"\\\n', "le": "+Inf"}), 3.0),
]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_what_was_exported_comes_out_as_text(tmp_path: Path, form: Format) -> None:
    WRITERS[form](tmp_path / f"shoal_round.{form}", ROWS)
    WRITERS[form](tmp_path / f"a%3Arecorded.{form}", [(500, "{}", 1e-9)])
    out = io.StringIO()
    written = openmetrics.write(tmp_path, out)
    assert out.getvalue().splitlines() == [
        "a:recorded{} 1e-09 0.500",
        'shoal_round{node="w01"} 0.5 1.000',
        'shoal_round{node="w01"} inf 2.125',
        r'shoal_round{node="a \"b\"\\\n",le="+Inf"} 3.0 1.500',
        "# EOF",
    ]
    assert (written.samples, written.since_s, written.until_s) == (4, 0.5, 2.125)


def test_a_run_without_samples(tmp_path: Path) -> None:
    out = io.StringIO()
    assert openmetrics.write(tmp_path, out).samples == 0
    assert out.getvalue() == "# EOF\n"
