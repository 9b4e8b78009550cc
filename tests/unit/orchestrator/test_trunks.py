"""Lines that zones share, in a container: how what its kernel shows is read."""

from __future__ import annotations

import re

import pytest

from node.contract import ShoalError
from node.contract.plan import Plan
from orchestrator.containers.trunks import check, differences, traffic_lines
from orchestrator.planning import listing
from orchestrator.planning.plan import make_plan

CLASS = "class htb {minor} root leaf {leaf} prio 0 rate {rate} ceil {rate} burst 2500b cburst 2500b \n"
MATCH = "  match {address}/ffffffff at {at} \n"


@pytest.fixture
def plan() -> Plan:
    return make_plan(listing.load("wan"))


class Kernel:
    """What tc 6.1 and a kernel make of the lines; a line that it does not know is an error."""

    def __init__(self, plan: Plan) -> None:
        self.forwards, self.classes, self.filters = "1\n", "", "filter protocol ip pref 1 u32 chain 0 \n"
        for line in traffic_lines(plan):
            if made := re.match(r"class add dev eth0 parent 1: classid (1:\w+) htb rate (\d+)bit", line):
                rate = f"{int(made[2]) // 10**6}Mbit" if int(made[2]) >= 10**6 else f"{made[2]}bit"
                self.classes += CLASS.format(minor=made[1], leaf="11:", rate=rate)
            elif "u32" in line:
                self.filters += self._filter(line)
            else:
                assert line.startswith("qdisc add dev eth0 "), line

    @property
    def answer(self) -> str:
        return "\036".join((self.forwards, self.classes, self.filters, ""))

    def _filter(self, line: str) -> str:
        head = "filter protocol ip pref 1 u32 chain 0 fh 1:6:800 order 2048 key ht 1 bkt 6"
        if pair := re.search(r"match ip dst (\S+)/32 match ip src (\S+)/32 flowid (1:\w+)$", line):
            shown = "".join(
                MATCH.format(address="".join(f"{int(byte):02x}" for byte in one.split(".")), at=at)
                for one, at in ((pair[1], 16), (pair[2], 12))
            )
            return f"{head} *flowid {pair[3]} not_in_hw \n{shown}"
        if line.endswith("link 1:"):
            return f"{head} link 1: not_in_hw \n  match 00000000/00000000 at 16 \n    hash mask 000000ff at 16 \n"
        if line.endswith("divisor 256"):
            return "filter protocol ip pref 1 u32 chain 0 fh 1: ht divisor 256 \n"
        assert line.endswith("match ip protocol 1 0xff match u8 5 0xff at 20 flowid 1:1"), line
        return f"{head} *flowid 1:1 not_in_hw \n  match 0a4d03fe/ffffffff at 12 \n  match 00010000/00ff0000 at 8 \n"


def test_what_is_laid_as_asked_is_not_complained_about(plan: Plan) -> None:
    assert differences(plan, Kernel(plan).answer) == []


def test_whatever_is_missing_or_other_is_said(plan: Plan) -> None:
    kernel = Kernel(plan)
    kernel.forwards = "0\n"
    kernel.classes = kernel.classes.replace("20Mbit", "19Mbit", 2)
    assert differences(plan, kernel.answer) == [
        "their container does not forward packets",
        "trunk asia:us-east has 19000000 bit/s instead of 20000000",
    ]


@pytest.mark.parametrize(
    ("shown", "instead", "said"),
    [
        (
            "0a4d0006/ffffffff at 16",
            "0a4d0009/ffffffff at 16",
            "from agg to w05 is of class none instead of 12",
        ),
        ("flowid 1:12", "flowid 1:10", "from agg to w05 is of class 10 instead of 12"),
        ("link 1:", "", "no packet is classified"),
    ],
)
def test_so_is_what_goes_another_way(plan: Plan, shown: str, instead: str, said: str) -> None:
    kernel = Kernel(plan)
    kernel.filters = kernel.filters.replace(shown, instead, 1)
    with pytest.raises(ShoalError, match=f"the trunks are not as asked: .*{said}"):
        check(plan, kernel.answer)


def test_where_nothing_is_laid_all_is_missing(plan: Plan) -> None:
    assert len(differences(plan, "\036\036\036")) == 1 + 2 + 12 + 1
