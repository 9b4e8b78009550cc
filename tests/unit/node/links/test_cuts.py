"""Cuts as rules of iptables: what is told, what is read back, and the union of several."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from node.contract.links import Cut
from node.links import cuts
from node.links.cuts import KernelRules, Rule
from node.links.states import cut_of, cut_packets

ADDRESSES = {"w02": "10.77.0.2", "w03": "10.77.0.3", "w04": "10.77.0.4"}
FAULTS = ("partition-1", "partition-2", "flapping-with-a-very-long-name-1")


@dataclass
class Iptables:
    """As much of iptables-restore and iptables-save as is used; strict about the rest."""

    chains: dict[str, dict[str, list[str]]] = field(
        default_factory=lambda: {"filter": {"INPUT": []}, "mangle": {"INPUT": []}}
    )

    def restore(self, script: str) -> None:
        first, *lines = script.splitlines()
        table = self.chains[first.removeprefix("*")]
        for line in lines:
            verb, _, rest = line.partition(" ")
            chain, _, rule = rest.partition(" ")
            if verb.startswith(":"):
                assert rest == "- [0:0]"
                table[verb[1:]] = []  # with --noflush a chain that is named is made, or emptied
            elif verb == "-A":
                if "-j " in rule:
                    target = rule.split("-j ")[1].split()[0]
                    assert target in (*table, "DROP", "REJECT", "NFQUEUE"), target
                table[chain].append(rule)
            elif verb == "-D":
                table[chain].remove(rule)
            else:
                assert verb == "-X", line
                assert table.pop(chain) == []
                assert not any(f"-j {chain}" in other for rules in table.values() for other in rules)

    def save(self) -> str:
        said = []
        for table, chains in self.chains.items():
            said.append(f"*{table}")
            said += [f":{chain} {'ACCEPT' if chain == 'INPUT' else '-'} [0:0]" for chain in chains]
            said += [f"[3:300] -A {chain} {rule}" for chain, rules in chains.items() for rule in rules]
            said.append("COMMIT")
        return "\n".join(said)

    def rules(self) -> KernelRules:
        return cuts.parse(self.save())

    def put(self, cut: Cut) -> None:
        if "filter" not in self.rules().tables:
            self.restore(cuts.put_base())
        self.restore(cuts.put_cut(cut.fault, cuts.cut_rules(cut, ADDRESSES), self.rules()))

    def heal(self, fault: str) -> None:
        self.restore(cuts.remove_cut(fault, self.rules()))


def wanted(known: dict[str, Cut]) -> dict[str, list[Rule]]:
    return {fault: cuts.cut_rules(cut, ADDRESSES) for fault, cut in known.items()}


maps = st.dictionaries(st.sampled_from(sorted(ADDRESSES)), st.sampled_from(["drop", "reject"]), min_size=1)
steps = st.lists(st.tuples(st.sampled_from(FAULTS), st.none() | maps), max_size=8)


@given(steps)
def test_a_node_is_deaf_to_the_union_and_a_heal_removes_only_its_own(
    steps: list[tuple[str, dict[str, str] | None]],
) -> None:
    kernel = Iptables()
    known: dict[str, Cut] = {}
    for fault, deaf_to in steps:
        if deaf_to is None:
            known.pop(fault, None)
            kernel.heal(fault)
        else:
            known[fault] = Cut(fault, deaf_to)  # type: ignore[arg-type]
            kernel.put(known[fault])
        actual = kernel.rules()
        assert cuts.compare_cuts(wanted(known), actual) == []
        deaf = {peer for cut in known.values() for peer in cut.deaf_to}
        assert {peer for peer, address in ADDRESSES.items() if cut_of(address, actual)} == deaf
        assert set(cuts.united(known)) == deaf


@given(steps, st.lists(st.tuples(st.sampled_from(FAULTS), maps), max_size=3))
def test_all_is_made_anew_whatever_there_was(
    before: list[tuple[str, dict[str, str] | None]], after: list[tuple[str, dict[str, str]]]
) -> None:
    kernel = Iptables()
    for fault, deaf_to in before:
        if deaf_to is not None:
            kernel.put(Cut(fault, deaf_to))  # type: ignore[arg-type]
    known = {fault: Cut(fault, deaf_to) for fault, deaf_to in after}  # type: ignore[arg-type]
    kernel.restore(cuts.put_cuts(wanted(known), kernel.rules()))
    assert cuts.compare_cuts(wanted(known), kernel.rules()) == []


def test_a_reject_answers_tcp_with_a_reset() -> None:
    rules = cuts.cut_rules(Cut("x", {"w02": "reject"}), ADDRESSES)
    assert [rule.what for rule in rules] == [
        "-p tcp -j REJECT --reject-with tcp-reset",
        "-j REJECT --reject-with icmp-port-unreachable",
    ]


def test_the_commit_is_left_to_its_moment() -> None:
    actual = Iptables().rules()
    for script in (cuts.put_base(), cuts.put_cut("x", [], actual), cuts.remove_cut("x", actual)):
        assert "COMMIT" not in script


def test_a_peer_without_a_link_cannot_be_cut() -> None:
    with pytest.raises(UsageError, match="w09"):
        cuts.cut_rules(Cut("x", {"w09": "drop"}), ADDRESSES)


def test_chains_have_names_that_iptables_takes() -> None:
    names = {cuts.chain_of(fault) for fault in (*FAULTS, "two words", "two-words")}
    assert len(names) == len(FAULTS) + 2
    assert all(len(name) <= 28 and " " not in name for name in names)


def test_who_is_held_and_who_is_counted() -> None:
    kernel = Iptables()
    rules = cuts.hold_rules(ADDRESSES, {"w03": 7})
    kernel.restore(cuts.put_hold(rules, kernel.rules()))
    assert kernel.chains["mangle"]["SHOAL-HOLD"] == [
        "-s 10.77.0.2/32",
        "-s 10.77.0.3/32 -j NFQUEUE --queue-num 7",
        "-s 10.77.0.4/32",
    ]
    assert cuts.compare_hold(rules, kernel.rules()) == []
    kernel.restore(cuts.put_hold(rules, kernel.rules()))
    assert cuts.compare_hold(rules, kernel.rules()) == []
    assert kernel.chains["mangle"]["INPUT"] == ["-i data -j SHOAL-HOLD"]  # once


def test_each_difference_is_said() -> None:
    known = {"x": Cut("x", {"w02": "drop", "w03": "drop"})}
    kernel = Iptables()
    kernel.put(known["x"])
    chain = kernel.chains["filter"]["SHOAL-C-x"]
    chain.pop(0)
    assert cuts.compare_cuts(wanted(known), kernel.rules()) == ["cut x: no rule for 10.77.0.2 -j DROP"]
    chain.insert(0, "-s 10.77.0.4/32 -j DROP")
    assert any("10.77.0.4" in said for said in cuts.compare_cuts(wanted(known), kernel.rules()))
    kernel.chains["filter"]["INPUT"].clear()
    assert any("nothing leads" in said for said in cuts.compare_cuts(wanted(known), kernel.rules()))
    assert cuts.compare_cuts({}, kernel.rules()) == ["a cut too many: SHOAL-C-x"]
    assert cuts.compare_cuts(wanted(known), KernelRules()) != []
    assert len(cuts.compare_hold(cuts.hold_rules(ADDRESSES, {}), kernel.rules())) == 2


def test_cut_packets_are_summed_over_faults() -> None:
    kernel = Iptables()
    kernel.put(Cut("x", {"w02": "drop"}))
    kernel.put(Cut("y", {"w02": "drop", "w03": "drop"}))
    assert (cut_packets("10.77.0.2", kernel.rules()), cut_packets("10.77.0.3", kernel.rules())) == (6, 3)
