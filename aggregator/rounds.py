"""One attempt at a round, as a pure state machine: open, then closed. The clock is passed in.

What may happen to it: an update is accepted, an update is refused, it is closed. Each gives a new Round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from node.contract.messages import ENCODING, Manifest, Refusal, Signed
from node.learning.encoding import Weights

Phase = Literal["open", "closed"]
ClosedBy = Literal["all", "deadline"]

# Whoever has sent one of these for this very round and base has had his turn: he would only send it again.
SETTLING: Final[frozenset[Refusal]] = frozenset(
    {"too_large", "unverified", "misshapen", "wrong_dtype", "not_finite"}
)
MAX_REFUSED: Final = 16  # of one sender that are kept; a flood must not fill the record


@dataclass(frozen=True)
class Terms:
    """What is asked, of whom, and when it is enough."""

    run: str
    round: int  # the version of the model that it shall make
    attempt: int  # counts all rounds of the chain, also those that made no model
    base: str
    size_bytes: int
    asked: tuple[str, ...]  # in order of name
    needed: int
    deadline_s: float


@dataclass(frozen=True, eq=False)
class Update:
    """An update that passed every check."""

    sender: str  # the node's name
    signed: Signed
    weights: Weights
    seconds: float = 0.0  # to fetch and check it

    @property
    def examples(self) -> int:
        return self.signed.manifest.examples


@dataclass(frozen=True)
class Refused:
    """An update that did not, as the record keeps it."""

    sender: str  # the node's name; a stranger's peer ID
    reason: Refusal
    detail: str
    signed: Signed | None = None


class RoundError(RuntimeError):
    """Something was done to a round that its state does not allow: our own bug."""


@dataclass(frozen=True, eq=False)
class Round:
    terms: Terms
    opened_at_s: float
    until_s: float
    accepted: Mapping[str, Update] = field(default_factory=dict)
    refused: tuple[Refused, ...] = ()
    settled: frozenset[str] = frozenset()
    closed_by: ClosedBy | None = None

    @property
    def phase(self) -> Phase:
        return "open" if self.closed_by is None else "closed"

    @property
    def completed(self) -> bool:
        """Whether it is closed with enough updates for a new model."""
        taught = any(update.examples > 0 for update in self.accepted.values())
        return self.closed_by is not None and taught and len(self.accepted) >= self.terms.needed

    @property
    def missing(self) -> tuple[str, ...]:
        return tuple(name for name in self.terms.asked if name not in self.accepted)

    def updates(self) -> tuple[Update, ...]:
        """Those accepted, in order of the senders' names."""
        return tuple(self.accepted[name] for name in sorted(self.accepted))

    def wants(self, sender: str) -> bool:
        """Whether the sender is still to train for it."""
        its_turn = sender in self.terms.asked and sender not in self.settled and self.keeps(sender)
        return self.phase == "open" and its_turn

    def objection(self, sender: str, manifest: Manifest) -> tuple[Refusal, str] | None:
        """Why an update with this manifest cannot be accepted now."""
        terms = self.terms
        if manifest.run != terms.run:
            return "wrong_round", f"of run {manifest.run[:40]!r}"
        if manifest.round < terms.round:
            return "late", f"of round {manifest.round}, open is {terms.round}"
        if manifest.round > terms.round:
            return "wrong_round", f"of round {manifest.round}, open is {terms.round}"
        if sender not in terms.asked:
            return "stranger", "not asked in this round"
        if manifest.base != terms.base:
            return "wrong_base", f"computed from {manifest.base[:100]}"
        if manifest.encoding != ENCODING:
            return "wrong_encoding", f"{manifest.encoding[:40]!r} is not {ENCODING}"
        if sender in self.accepted:
            return "replayed", "an update of this sender is accepted already"
        if self.phase != "open":
            return "late", "the round is closed"
        return None

    def accept(self, update: Update) -> Round:
        objection = self.objection(update.sender, update.signed.manifest)
        if objection is not None:
            raise RoundError(f"accepting an update of {update.sender}: {objection}")
        accepted = {**self.accepted, update.sender: update}
        return replace(self, accepted=accepted, settled=self.settled | {update.sender})

    def keeps(self, sender: str) -> bool:
        """Whether one more refusal of this sender would be kept."""
        return sum(refused.sender == sender for refused in self.refused) < MAX_REFUSED

    def refuse(self, refused: Refused) -> Round:
        """Keep a refusal; after the end it changes nothing."""
        if self.phase == "closed" or not self.keeps(refused.sender):
            return self
        settles = refused.reason in SETTLING and refused.sender in self.terms.asked
        settled = self.settled | {refused.sender} if settles else self.settled
        return replace(self, refused=(*self.refused, refused), settled=settled)

    def close(self, by: ClosedBy) -> Round:
        if self.phase == "closed":
            raise RoundError("a round is closed only once")
        return replace(self, closed_by=by)


def needed_of(asked: Sequence[str], quorum: float) -> int:
    """How many updates make a model; never none."""
    return max(1, math.ceil(quorum * len(asked) - 1e-9))  # 0.6 of 5 is 3, whatever the floats say


def opened(terms: Terms, now_s: float, opened_at_s: float | None = None) -> Round:
    """A round that begins now; one that is resumed began earlier, and gets its whole deadline again."""
    if tuple(sorted(set(terms.asked))) != terms.asked or not terms.asked:
        raise RoundError(f"asked must be names in order, each once: {terms.asked}")
    return Round(terms, now_s if opened_at_s is None else opened_at_s, now_s + terms.deadline_s)


def all_or_deadline(current: Round, clock_s: float) -> ClosedBy | None:
    """The synchronous rule: everybody has had his turn, or time is up."""
    if current.phase == "closed":
        return None
    if current.settled.issuperset(current.terms.asked):
        return "all"
    return "deadline" if clock_s >= current.until_s else None
