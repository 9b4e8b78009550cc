from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator import rounds
from aggregator.rounds import MAX_REFUSED, Refused, Round, RoundError, Terms, Update, needed_of, opened
from node.contract.messages import ENCODING, Manifest, Refusal, Signed
from tests.unit.aggregator.fake_learning import template

ASKED = ("w01", "w02", "w03", "w04", "w05")
TERMS = Terms("run", 3, 5, "base", 100, ASKED, 3, 10.0)
MANIFEST = Manifest("run", 3, "peer", "base", "update", 100, ENCODING, 50, 0.1, 0.2, 0.3)


def update(sender: str, manifest: Manifest = MANIFEST) -> Update:
    return Update(sender, Signed(manifest, "u"), template())


def test_an_open_round_takes_what_was_asked_for() -> None:
    current = opened(TERMS, 100.0)
    assert current.wants("w01")
    assert current.objection("w01", MANIFEST) is None
    current = current.accept(update("w01"))
    assert not current.wants("w01")
    assert current.missing == ("w02", "w03", "w04", "w05")


@pytest.mark.parametrize(
    ("sender", "changes", "reason"),
    [
        ("w01", {"run": "another"}, "wrong_round"),
        ("w01", {"round": MANIFEST.round + 1}, "wrong_round"),
        ("w01", {"round": MANIFEST.round - 1}, "late"),
        ("w09", {}, "stranger"),
        ("w01", {"base": "older"}, "wrong_base"),
        ("w01", {"encoding": "pickle"}, "wrong_encoding"),
        ("w02", {}, "replayed"),
    ],
)
def test_what_is_objected_to(sender: str, changes: dict[str, object], reason: str) -> None:
    current = opened(TERMS, 0.0).accept(update("w02"))
    manifest = replace(MANIFEST, **changes)  # type: ignore[arg-type]
    objection = current.objection(sender, manifest)
    assert objection is not None
    assert objection[0] == reason
    with pytest.raises(RoundError):
        current.accept(update(sender, manifest))


def test_nothing_is_accepted_after_the_end_and_nothing_ends_twice() -> None:
    closed = opened(TERMS, 0.0).close("deadline")
    assert closed.objection("w01", MANIFEST) == ("late", "the round is closed")
    with pytest.raises(RoundError):
        closed.accept(update("w01"))
    with pytest.raises(RoundError):
        closed.close("all")
    assert rounds.all_or_deadline(closed, 1e9) is None
    assert closed.refuse(Refused("w01", "forged", "")) is closed


def test_who_sent_a_bad_update_has_had_his_turn() -> None:
    current = opened(TERMS, 0.0)
    for name in ASKED[1:]:
        current = current.accept(update(name))
    assert rounds.all_or_deadline(current.refuse(Refused("w01", "forged", "")), 1.0) is None
    settled = current.refuse(Refused("w01", "not_finite", ""))
    assert not settled.wants("w01")
    assert rounds.all_or_deadline(settled, 1.0) == "all"
    assert settled.missing == ("w01",)


def test_a_flood_of_refusals_is_kept_in_bounds_and_ends_the_senders_turns() -> None:
    current = opened(TERMS, 0.0)
    for _ in range(3 * MAX_REFUSED):
        current = current.refuse(Refused("w01", "forged", ""))
    assert len(current.refused) == MAX_REFUSED
    assert not current.wants("w01")
    assert current.wants("w02")
    assert rounds.all_or_deadline(current, 1.0) is None


def test_a_resumed_round_has_its_whole_deadline_and_its_first_opening() -> None:
    current = opened(TERMS, 100.0, 60.0)
    assert (current.opened_at_s, current.until_s) == (60.0, 110.0)


@pytest.mark.parametrize("asked", [(), ("b", "a"), ("a", "a")])
def test_who_is_asked_stands_in_order(asked: tuple[str, ...]) -> None:
    with pytest.raises(RoundError):
        opened(replace(TERMS, asked=asked), 0.0)


@pytest.mark.parametrize(
    ("count", "quorum", "needed"),
    [(5, 0.6, 3), (4, 0.6, 3), (10, 0.3, 3), (3, 0.0, 1), (1, 1.0, 1), (7, 1.0, 7)],
)
def test_the_quorum(count: int, quorum: float, needed: int) -> None:
    assert needed_of(["w"] * count, quorum) == needed


def test_updates_that_taught_nothing_make_no_model() -> None:
    current = opened(TERMS, 0.0)
    for name in ASKED:
        current = current.accept(update(name, replace(MANIFEST, examples=0)))
    assert not current.close("all").completed


REASONS: list[Refusal] = ["forged", "not_finite", "too_large", "late"]
EVENTS = st.one_of(
    st.tuples(st.just("offer"), st.sampled_from((*ASKED, "x")), st.sampled_from([2, 3])),
    st.tuples(st.just("refuse"), st.sampled_from((*ASKED, "x")), st.sampled_from(REASONS)),
    st.tuples(st.just("wait"), st.floats(0, 4), st.none()),
)


@given(st.lists(EVENTS, max_size=60))
def test_the_laws_of_a_round(events: list[tuple[str, object, object]]) -> None:
    current, now_s, closings = opened(TERMS, 0.0), 0.0, 0
    taken: list[str] = []
    for kind, first, second in events:
        before: Round = current
        if kind == "offer":
            offered = update(str(first), replace(MANIFEST, round=second))  # type: ignore[arg-type]
            if current.objection(offered.sender, offered.signed.manifest) is None:
                current = current.accept(offered)
                taken.append(offered.sender)
                assert before.phase == "open"
        elif kind == "refuse":
            current = current.refuse(Refused(str(first), second, ""))  # type: ignore[arg-type]
        else:
            now_s += first  # type: ignore[operator]
        if (by := rounds.all_or_deadline(current, now_s)) is not None:
            assert by == "all" or now_s >= TERMS.deadline_s
            current = current.close(by)
            closings += 1
    assert closings <= 1
    assert current.phase == ("closed" if closings else "open")
    assert now_s < TERMS.deadline_s or closings == 1 or not events or events[-1][0] != "wait"
    assert len(taken) == len(set(taken))
    assert set(taken) <= set(ASKED)
    assert [one.sender for one in current.updates()] == sorted(taken)
    assert current.completed == (closings == 1 and len(taken) >= TERMS.needed)
