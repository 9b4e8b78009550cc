from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import ShoalError
from node.ipfs.commands import check, go_duration, query


def test_a_call_is_spelt_as_the_daemon_reads_it() -> None:
    words = query("p2p/listen", ["/x/a/1", "/ip4/127.0.0.1/tcp/9"], {"report_peer_id": True}, 2.5)
    assert words == [
        ("arg", "/x/a/1"),
        ("arg", "/ip4/127.0.0.1/tcp/9"),
        ("report-peer-id", "true"),
        ("timeout", "2500ms"),
    ]


def test_no_timeout_where_none_is_wanted() -> None:
    assert query("pubsub/sub", ["utopic"], {}, None) == [("arg", "utopic")]


def test_an_unknown_command_or_option_is_refused() -> None:
    with pytest.raises(ShoalError, match="no/such"):
        query("no/such", [], {}, 1)
    with pytest.raises(ShoalError, match="offest"):
        query("cat", ["x"], {"offest": 5}, 1)
    with pytest.raises(ShoalError, match="trickle"):
        check("add", ["pin", "trickle"])


@given(st.floats(min_value=1e-6, max_value=1e6))
def test_durations_have_a_unit_and_are_never_zero(seconds: float) -> None:
    text = go_duration(seconds)
    assert re.fullmatch(r"[1-9][0-9]*ms", text)
    assert abs(int(text[:-2]) / 1000 - seconds) <= 0.001


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_no_time_at_all_is_refused(seconds: float) -> None:
    with pytest.raises(ShoalError):
        go_duration(seconds)
