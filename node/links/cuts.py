"""Cuts, and what is held back, as rules of iptables at the receiver. Pure.

    filter INPUT ── SHOAL-CUT ── one chain for each fault: its peers are dropped or rejected
    mangle INPUT, from data ── SHOAL-HOLD ── each peer: to its NFQUEUE, or only counted

Mangle comes before filter, so a packet that was held meets the cut when it arrives, not when it was sent. A
chain for each fault: a cut that two faults share ends with the later of them. Cuts do not ask for the
interface: the holder's copies of doubled packets come over another.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from node.contract import UsageError
from node.contract.links import Cut, CutHow
from node.links.tree import DATA

CUT_CHAIN: Final = "SHOAL-CUT"
HOLD_CHAIN: Final = "SHOAL-HOLD"
FAULT_PREFIX: Final = "SHOAL-C-"
LONGEST_CHAIN: Final = 28
RULE: Final = re.compile(r"^(?:\[(?P<packets>\d+):(?P<bytes>\d+)\] )?-A (?P<chain>\S+) (?P<rest>.*)$")
SOURCE: Final = re.compile(r"^-s (?P<address>[\d.]+)(?:/32)?(?: |$)")
REJECT_TCP: Final = "-p tcp -j REJECT --reject-with tcp-reset"
REJECT_REST: Final = "-j REJECT --reject-with icmp-port-unreachable"


@dataclass(frozen=True)
class Rule:
    """One rule of a chain: for whom, and everything behind that."""

    address: str
    what: str


@dataclass(frozen=True)
class Counted:
    rule: Rule
    packets: int
    bytes: int


@dataclass(frozen=True)
class KernelRules:
    """What iptables-save shows of ours."""

    tables: frozenset[str] = frozenset()  # those whose INPUT jumps to our chain
    chains: Mapping[str, tuple[Counted, ...]] = field(default_factory=dict)
    joined: tuple[str, ...] = ()  # fault chains that SHOAL-CUT jumps to, in order


def chain_of(fault: str) -> str:
    """The fault's own chain: its name where that is short and plain."""
    plain = re.fullmatch(r"[A-Za-z0-9._-]+", fault)
    name = FAULT_PREFIX + fault
    return name if plain and len(name) <= LONGEST_CHAIN else f"{FAULT_PREFIX}{zlib.crc32(fault.encode()):08x}"


def cut_rules(cut: Cut, addresses: Mapping[str, str]) -> list[Rule]:
    """The rules of one fault's chain, in order of the peers' names."""
    rules = []
    for peer, how in sorted(cut.deaf_to.items()):
        if peer not in addresses:
            raise UsageError(
                f"cut {cut.fault}: there is no link with {peer!r}",
                f"known are {', '.join(sorted(addresses))}",
            )
        if how == "reject":
            rules.append(Rule(addresses[peer], REJECT_TCP))
            rules.append(Rule(addresses[peer], REJECT_REST))
        else:
            rules.append(Rule(addresses[peer], "-j DROP"))
    return rules


def hold_rules(addresses: Mapping[str, str], queues: Mapping[str, int]) -> list[Rule]:
    """Whom to hold, and in which queue; everybody else is counted."""
    return [
        Rule(address, f"-j NFQUEUE --queue-num {queues[peer]}" if peer in queues else "")
        for peer, address in addresses.items()
    ]


def put_hold(rules: list[Rule], actual: KernelRules) -> str:
    """Makes the mangle chain exactly these rules, at once."""
    jump = [] if "mangle" in actual.tables else [f"-A INPUT -i {DATA} -j {HOLD_CHAIN}"]
    return _script("mangle", [HOLD_CHAIN], [*_appends(HOLD_CHAIN, rules), *jump])


def put_base() -> str:
    """The chain that the faults' chains are joined to; it stays."""
    return _script("filter", [CUT_CHAIN], [f"-A INPUT -j {CUT_CHAIN}"])


def put_cut(fault: str, rules: list[Rule], actual: KernelRules) -> str:
    """Makes the fault's chain exactly these rules, whether it was there or not."""
    chain = chain_of(fault)
    joins = [] if chain in actual.joined else [f"-A {CUT_CHAIN} -j {chain}"]
    return _script("filter", [chain], [*_appends(chain, rules), *joins])


def remove_cut(fault: str, actual: KernelRules) -> str:
    """Takes a fault's chain away; one that is gone already is no error."""
    chain = chain_of(fault)
    if chain not in actual.chains:
        return _script("filter", [], [])
    leave = [f"-D {CUT_CHAIN} -j {chain}"] * actual.joined.count(chain)
    return _script("filter", [chain], [*leave, f"-X {chain}"])  # naming it empties it


def put_cuts(cuts: Mapping[str, list[Rule]], actual: KernelRules) -> str:
    """Makes all cuts anew: of these faults and no others. For a start and for repairs."""
    stale = [chain for chain in actual.chains if chain.startswith(FAULT_PREFIX)]
    wanted = [chain_of(fault) for fault in cuts]
    lines = [line for fault, rules in cuts.items() for line in _appends(chain_of(fault), rules)]
    lines += [f"-A {CUT_CHAIN} -j {chain}" for chain in wanted]
    if "filter" not in actual.tables:
        lines.append(f"-A INPUT -j {CUT_CHAIN}")
    gone = [chain for chain in stale if chain not in wanted]
    return _script("filter", [CUT_CHAIN, *wanted, *gone], [*lines, *(f"-X {chain}" for chain in gone)])


def parse(saved: str) -> KernelRules:
    """From `iptables-save -c`."""
    tables: set[str] = set()
    chains: dict[str, list[Counted]] = {}
    joined = []
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            name = line[1:].split()[0]
            if name in (CUT_CHAIN, HOLD_CHAIN) or name.startswith(FAULT_PREFIX):
                chains.setdefault(name, [])
        elif match := RULE.match(line):
            chain, rest = match["chain"], match["rest"]
            if chain == "INPUT" and rest in (f"-j {CUT_CHAIN}", f"-i {DATA} -j {HOLD_CHAIN}"):
                tables.add(table)
            elif chain == CUT_CHAIN and rest.startswith("-j "):
                joined.append(rest[3:])
            elif chain in chains:
                source = SOURCE.match(rest)
                rule = Rule(source["address"], rest[source.end() :]) if source else Rule("", rest)
                chains[chain].append(Counted(rule, int(match["packets"] or 0), int(match["bytes"] or 0)))
    return KernelRules(
        frozenset(tables), {name: tuple(rules) for name, rules in chains.items()}, tuple(joined)
    )


def compare_cuts(cuts: Mapping[str, list[Rule]], actual: KernelRules) -> list[str]:
    """Where the kernel's cuts are not these; for people."""
    said = []
    for fault, rules in cuts.items():
        chain = chain_of(fault)
        if chain not in actual.joined or "filter" not in actual.tables:
            said.append(f"cut {fault}: nothing leads to its chain")
        said += _chain_differences(f"cut {fault}", rules, actual.chains.get(chain))
    wanted = {chain_of(fault) for fault in cuts}
    return said + [f"a cut too many: {chain}" for chain in actual.joined if chain not in wanted]


def compare_hold(rules: list[Rule], actual: KernelRules) -> list[str]:
    """Where what is held is not by these rules; for people."""
    said = [] if "mangle" in actual.tables else ["held packets: nothing leads to their chain"]
    return said + _chain_differences("held packets", rules, actual.chains.get(HOLD_CHAIN))


def united(cuts: Mapping[str, Cut]) -> dict[str, CutHow]:
    """Whom a node does not hear, by all faults; the first one's way counts, as in the kernel."""
    deaf: dict[str, CutHow] = {}
    for cut in cuts.values():
        for peer, how in cut.deaf_to.items():
            deaf.setdefault(peer, how)
    return dict(sorted(deaf.items()))


def _chain_differences(what: str, rules: list[Rule], chain: tuple[Counted, ...] | None) -> list[str]:
    if chain is None:
        return [f"{what}: its chain is gone"]
    has = [counted.rule for counted in chain]
    if has == rules:
        return []
    missing = [rule for rule in rules if rule not in has]
    extra = [rule for rule in has if rule not in rules]
    said = [f"{what}: no rule for {rule.address} {rule.what}" for rule in missing]
    said += [f"{what}: a rule too many for {rule.address or 'all'} {rule.what}" for rule in extra]
    return said or [f"{what}: its rules stand in another order"]


def _appends(chain: str, rules: list[Rule]) -> list[str]:
    return [f"-A {chain} -s {rule.address}/32 {rule.what}".rstrip() for rule in rules]


def _script(table: str, chains: list[str], lines: list[str]) -> str:
    """All but COMMIT, whose moment is chosen later. Chains that are named are emptied."""
    return "".join(line + "\n" for line in [f"*{table}", *(f":{chain} - [0:0]" for chain in chains), *lines])
