"""A whole run in which processes are killed, paused and restarted: what is done to them, and that all goes on."""

from __future__ import annotations

from tests.run.place import Place

AGGREGATION = 'aggregation: {strategy: mean, quorum: 0.3, deadline: "6 s"}'
FAULTS = """
faults:
  - {name: still, pause: {targets: w01, part: ipfs}, at: "round 2", for: "4 s"}
  - {name: split, partition: {isolate: w03}, at: "round 2", heal: "round 3"}
  - {name: gone, kill: {targets: w02, part: node}, at: "round 2", heal: "round 3"}
  - {name: blind, restart: {targets: w03, part: agent}, at: "round 2"}
  - {name: head, restart: {part: aggregator}, at: "round 3"}
"""


def go(place: Place, driver: str) -> None:
    """The run, and what is the same on every driver."""
    file = place.scenario(workers=3, aggregation=AGGREGATION, more=FAULTS)
    status, said = place.run(file, SHOAL_DRIVER=driver)
    results = place.results()
    assert (results["driver"], results["failure"], results["network_doubts"]) == (driver, None, []), said
    verified = {(e["fault"], e["phase"]): e["verified"] for e in place.events("fault_verified")}
    names = ("still", "split", "gone", "blind", "head")
    assert verified == {(name, phase): True for name in names for phase in ("start", "heal")}
    assert status == 1, said  # a round had nobody but one: `participants`

    # Nobody is lost: whatever ended was meant to.
    assert [e for e in place.events("part_ended") if not e["expected"]] == []
    for part, count in (("agent", 2), ("ipfs", 2), ("trainer", 2)):
        assert len([e for e in place.events("part_started", "w02") if e["part"] == part]) == count
    for node, part in (("w01", "ipfs"), ("w01", "trainer"), ("w03", "trainer")):
        assert len([e for e in place.events("part_started", node) if e["part"] == part]) == 1
    assert results["rounds_completed"] == 3  # though the restarted aggregator may tell of one twice
    closed = {event["round"]: event["accepted"] for event in place.events("round_closed")}
    assert closed[1] == ["w01", "w02", "w03"]
    assert closed[3] == ["w01", "w02", "w03"]
    assert set(results["unwatched_seconds"]) == {"w02", "w03"}
    restored = [e["nodes"] for e in place.events("fault_restored") if e["faults"] == ["split"]]
    assert ["w03"] in restored  # its agent came back within the partition


def test_what_is_killed_and_paused_is_seen_to_be_and_comes_back(place: Place) -> None:
    go(place, "netns")
    killed = {(e["node"], e["part"]) for e in place.events("part_ended") if e["status"] == -9}
    assert killed == {("w03", "agent"), ("agg", "aggregator")}  # of a whole node nobody is left to tell
