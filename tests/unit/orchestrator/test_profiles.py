from __future__ import annotations

import re
from pathlib import Path

import pytest

from node.contract import UsageError
from orchestrator.planning import document, links, profiles, rules
from orchestrator.planning.document import Item

README = Path(__file__).resolve().parents[3] / "scenarios" / "README.md"
WANTED = {
    *("lan", "home-broadband", "4g", "satellite", "regions", "5g-infrastructure"),
    *("5g-d2d-direct", "5g-d2d-relay", "5g-urllc", "5g-embb"),
}


def test_the_profiles_that_are_promised_are_there_and_explained() -> None:
    section = README.read_text().partition("### Profiles")[2].partition("\n## ")[0]
    explained = dict(re.findall(r"^\| `([^`]+)` \| (.+) \|$", section, re.MULTILINE))
    assert explained == {name: profiles.load(name).summary.rstrip(".") for name in profiles.names()}
    assert set(profiles.names()) >= WANTED


@pytest.mark.parametrize("name", profiles.names())
def test_every_profile_is_right_and_tells_where_its_figures_come_from(name: str) -> None:
    profile = profiles.load(name)
    assert profile.summary.endswith(".")
    assert re.search(r"\d{3,}", profile.source), "a published source has a year or a number"
    assert profile.assumed
    if profile.matrix is None:
        rule = rules.read(profile.rule, profiles.FOLDER)
        rules.check(rule, name)
        assert rule.values["latency_ms"] > 0
        assert profile.line.keys() in ({"up", "down"}, set())
        assert profile.line or "rate_bit_s" in rule.values
        for item in profile.line.values():
            assert rules.read_rate(item)


def test_the_regions_have_a_latency_for_every_pair() -> None:
    item = document.parse("matrix: {profile: regions}", "mine.yaml")
    zones = ["eu", "us-east", "us-west", "asia", "south-asia", "oceania", "south-america"]
    matrix = links.read(item.mapping(), Path(), zones, []).matrix
    assert set(matrix) == {(one, other) for one in zones for other in zones}
    assert all(matrix[one, other] == matrix[other, one] for one in zones for other in zones)
    assert matrix["eu", "us-east"].values == {"latency_ms": 40.3, "profile": "regions"}
    far = [matrix[one, other].values["latency_ms"] for one in zones for other in zones if one != other]
    assert min(far) > matrix["eu", "eu"].values["latency_ms"]


def test_a_relay_is_two_hops() -> None:
    one, two = (
        rules.read(profiles.load(f"5g-d2d-{which}").rule, Path()).values for which in ("direct", "relay")
    )
    assert two["latency_ms"] == 2 * one["latency_ms"]
    assert two["rate_bit_s"] == one["rate_bit_s"] / 2
    assert two["loss"] == pytest.approx(1 - (1 - one["loss"]) ** 2, rel=0.01)
    assert two["jitter_ms"] == pytest.approx(one["jitter_ms"] * 2**0.5, rel=0.02)


def test_an_unknown_key_or_no_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "FOLDER", tmp_path)
    (tmp_path / "made-up.yaml").write_text("summary: a.\nsource: b\ntrace: c.csv\n")
    with pytest.raises(UsageError, match=r"profiles/made-up.yaml:3: trace: unknown key"):
        profiles.load("made-up")
    (tmp_path / "made-up.yaml").write_text("summary: a.\nlatency: 5 ms\n")
    with pytest.raises(UsageError, match=r"made-up.yaml:1: the key source is missing"):
        profiles.load("made-up")


def test_names_that_are_no_profile_or_of_the_other_kind() -> None:
    for name, is_matrix, said in (
        ("4gg", False, "'4gg' is not known here\n  perhaps you meant 4g"),
        ("regions", False, "regions is a matrix of regions\n  write: network: {matrix: {profile: regions}}"),
        ("4g", True, "4g says nothing of regions\n  write: network: {default: {profile: 4g}}"),
    ):
        with pytest.raises(UsageError) as caught:
            profiles.named(Item(name, "mine.yaml", 3, "a.profile"), is_matrix)
        assert str(caught.value).startswith(f"mine.yaml:3: a.profile: {said}")
