"""Whole runs whose faults begin and end with rounds, on links of which nothing else is asked."""

from __future__ import annotations

from tests.run.place import Place

FAULTS = """
faults:
  - {name: first, partition: {isolate: w01}, at: "round 1", heal: "round 2"}
  - {name: second, partition: {isolate: w02}, at: "round 2", heal: "round 3"}
  - {name: other, partition: {one_way: {from: w01, to: w03}}, at: "round 2", heal: "round 3"}
"""


def test_rounds_wait_for_what_is_due_with_them_and_for_nothing_else(place: Place) -> None:
    aggregation = 'aggregation: {strategy: mean, quorum: 0.3, deadline: "6 s"}'
    status, said = place.run(place.scenario(workers=3, aggregation=aggregation, more=FAULTS))
    assert place.events("release_missing") == [], said
    assert [event["round"] for event in place.events("round_due")] == [1, 2, 3]
    assert [event["round"] for event in place.events("round_released")] == [1, 2, 3]
    verified = {(e["fault"], e["phase"]): e["verified"] for e in place.events("fault_verified")}
    assert verified == {
        (name, phase): True for name in ("first", "second", "other") for phase in ("start", "heal")
    }

    opened = {event["round"]: event["mono_ns"] for event in place.events("round_opened")}
    closed = {event["round"]: event for event in place.events("round_closed")}
    in_force = {event["fault"]: event["effective_ns"] for event in place.events("fault_started")}
    healed = {event["fault"]: event["effective_ns"] for event in place.events("fault_healed")}
    assert max(in_force["first"].values()) < opened[1]
    for number, begun in ((1, []), (2, [in_force["second"], in_force["other"], healed["first"]])):
        for instants in begun:
            assert closed[number - 1]["mono_ns"] < min(instants.values())
            assert max(instants.values()) < opened[number]
    assert closed[2]["mono_ns"] < min(healed["second"].values())
    assert "w01" not in closed[1]["accepted"]
    assert "w02" in closed[1]["accepted"]
    assert "w02" not in closed[2]["accepted"]
    assert status in (0, 1), said  # who was cut off may come back too late for `participants`
    assert place.results()["network_doubts"] == []
