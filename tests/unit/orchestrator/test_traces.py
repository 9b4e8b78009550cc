from __future__ import annotations

import hashlib
import itertools
import statistics
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from node.contract.links import TracePoint
from orchestrator.planning import traces
from orchestrator.planning.document import Item


def named(text: str | list[Item]) -> Item:
    return Item(text, "mine.yaml", 7, "network.default.trace")


def test_a_trace_has_units_or_those_of_its_columns(tmp_path: Path) -> None:
    data = b"# by train\ntime, latency, rate, loss\n0, 40 ms, 12 Mbit, 0 %\n1.5, 55, 3.25, 0.01\n2 min,1 s,8 kbit,100 %\n"
    (tmp_path / "train.csv").write_bytes(data)
    trace = traces.read(named("train.csv"), tmp_path)
    assert trace.points == (
        TracePoint(0.0, 40.0, 12_000_000, 0.0),
        TracePoint(1.5, 55.0, 3_250_000, 0.01),
        TracePoint(120.0, 1000.0, 8000, 1.0),
    )
    assert (trace.file, trace.sha256) == ("train.csv", hashlib.sha256(data).hexdigest())


def test_a_column_that_is_not_there_stays_as_the_link_has_it() -> None:
    assert traces.parse(b"time,loss\n0,0\n1,1 %", "a.csv") == (
        TracePoint(0.0, None, None, 0.0),
        TracePoint(1.0, None, None, 0.01),
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("", "a.csv:1: the columns are not named"),
        ("0,40 ms\n1,50 ms", "a.csv:1: the columns are not named"),
        ("time\n0\n1", "a.csv:1: the columns are not named"),
        ("time,lateness\n0,1\n1,2", "a.csv:1: 'lateness' is no column"),
        ("time,loss,loss\n0,0,0\n1,0,0", "a.csv:1: 'loss' is no column, or stands twice"),
        ("time,latency,loss\n0,5 ms,0\n1,,0\n2,5 ms,0", "a.csv:3: a value is missing"),
        ("time,latency,loss\n0,5 ms,0\n1,5 ms\n2,5 ms,0", "a.csv:3: a value is missing"),
        ("time,latency\n0,5 ms\n\n2,5 ms", "a.csv:3: a value is missing"),
        ("time,latency\n0,5 ms\n1,5 ms,4", "a.csv:3: a value is missing"),
        ("time,latency\n1,5 ms\n2,5 ms", "a.csv:2: the trace begins at 1 s"),
        ("time,latency\n0,5 ms\n2,5 ms\n2,6 ms", "a.csv:4: 2 s is not after 2 s"),
        ("time,latency\n0,5 ms\n3,5 ms\n2,6 ms", "a.csv:4: 2 s is not after 3 s"),
        ("time,latency\n0,5 ms", "a.csv: 1 points are no trace"),
        ("time,latency\n0,-5\n1,5", "a.csv:2: latency: '-5 ms': a duration cannot be negative"),
        ("time,latency\n0,nan\n1,5", "a.csv:2: latency: 'nan' is no duration"),
        ("time,latency\n0,5 Mbit\n1,5", "a.csv:2: latency: '5 Mbit': Mbit is no unit of a duration"),
        ("time,rate\n0,7 kbit\n1,5", "a.csv:2: rate: 7 kbit is out of range\n  from 8 kbit to "),
        ("time,loss\n0,101 %\n1,5", "a.csv:2: loss: 101 % is out of range"),
        ("time,latency\n0,2 min\n1,5", "a.csv:2: latency: 2 min is out of range"),
        ('time,loss\n0,"5\n1,5', "a.csv:2: this is not CSV"),
    ],
)
def test_a_gap_is_refused_with_its_line(data: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        traces.parse(data.encode(), "a.csv")
    assert str(caught.value).startswith(said)


def test_bytes_that_are_no_text_are_told_with_their_line() -> None:
    with pytest.raises(UsageError, match=r"^a.csv:2: this is not UTF-8"):
        traces.parse(b"time,loss\n\xff,0", "a.csv")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "gone.csv",
            "gone.csv cannot be read: No such file or directory\n  it is sought beside the scenario",
        ),
        ("../a.csv", "'../a.csv' is no .csv file beside the scenario"),
        ("/a.csv", "'/a.csv' is no .csv file beside the scenario"),
        ("a.txt", "'a.txt' is no .csv file beside the scenario"),
    ],
)
def test_a_file_that_cannot_be_taken(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        traces.read(named(name), tmp_path)
    assert str(caught.value).startswith(f"mine.yaml:7: network.default.trace: {said}")


def test_a_complaint_about_a_file_names_scenario_and_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,loss\n0,0\n0,0\n")
    with pytest.raises(
        UsageError, match=r"^mine.yaml:7: network.default.trace: a.csv:3: 0 s is not after 0 s"
    ):
        traces.read(named("a.csv"), tmp_path)


def test_a_jitters_form_is_read_from_a_file_or_from_brackets(tmp_path: Path) -> None:
    (tmp_path / "delays.txt").write_text("# measured, ms\n31\n29\n30\n38\n")
    here = [named(number) for number in ("31", "29", "30", "38")]
    assert traces.read_quantiles(named("delays.txt"), tmp_path) == traces.read_quantiles(
        named(here), tmp_path
    )
    with pytest.raises(UsageError, match="expected a number, got 'x'"):
        traces.read_quantiles(named([named("x")]), tmp_path)
    (tmp_path / "delays.txt").write_text("31\nlate\n")
    with pytest.raises(UsageError, match=r"delays.txt:2: 'late' is no number"):
        traces.read_quantiles(named("delays.txt"), tmp_path)


@pytest.mark.parametrize("numbers", [[], [1.0], [2.0, 2.0, 2.0]])
def test_numbers_without_a_form(numbers: list[float]) -> None:
    with pytest.raises(UsageError, match="these numbers have no form"):
        traces.quantiles(numbers)


@given(st.lists(st.integers(-1000, 1000), min_size=21, max_size=200, unique=True))
def test_only_the_form_of_the_numbers_counts(numbers: list[int]) -> None:
    found = traces.quantiles([float(number) for number in numbers])
    assert list(found) == sorted(found)
    assert len(found) == min(len(numbers), traces.MOST_QUANTILES)
    drawn = [  # as the engines do: anywhere on the lines between the quantiles, evenly
        low + (high - low) * (step + 0.5) / 50
        for low, high in itertools.pairwise(found)
        for step in range(50)
    ]
    assert statistics.fmean(drawn) == pytest.approx(0, abs=1e-3)
    assert statistics.pstdev(drawn) == pytest.approx(1, abs=1e-3)
    moved = traces.quantiles([7.0 * number + 1234 for number in reversed(numbers)])
    assert moved == pytest.approx(found, abs=2e-6)
