from __future__ import annotations

from orchestrator.measuring import calibrate
from orchestrator.measuring.calibration import Calibration, Figure

RIGHT = Figure("agg>w01", "goodput_bit_s", "one stream", 9.5e6, 9.2e6, 9.8e6, 9.4e6, True, 1)
WRONG = Figure("agg>w02", "loss", "10000 packets", 0.01, 0.008, 0.012, 0.02, False, 2)
NONE = Figure("agg>w03", "round_trip_ms", "20 echoes", 40.0, 39.0, 41.0, None, False, 2, "nothing came back")


def test_a_row_has_units_and_what_was_intended() -> None:
    assert "+ agg>w01" in calibrate.row(RIGHT)
    assert "9.4 Mbit/s intended 9.5 (9.2 to 9.8)" in calibrate.row(RIGHT)
    assert "? agg>w02" in calibrate.row(WRONG)
    assert "2 %      intended 1 (0.8 to 1.2)" in calibrate.row(WRONG)
    assert "none ms" in calibrate.row(NONE)
    assert calibrate.row(NONE).endswith("nothing came back")


def test_the_end_counts_and_tells_what_was_not_measured() -> None:
    found = Calibration(6, 5, 12.3, (RIGHT, WRONG), ("loss of agg>w02",), ("loss of w01>agg: a trace",))
    assert calibrate.closing(found) == [
        "  not measured: loss of w01>agg: a trace",
        "1 of 2 figures of 5 links as intended, 12 s",
    ]
