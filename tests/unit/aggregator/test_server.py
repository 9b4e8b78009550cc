from __future__ import annotations

import pytest

from aggregator.learning import TffLearning
from aggregator.server import job_of
from node.contract import UsageError
from node.contract.settings import Neighbour, NodeSettings
from tests.settings import node_settings


def settings(shards: dict[str, str]) -> NodeSettings:
    return node_settings(
        "agg",
        roles=("aggregator",),
        neighbours=(Neighbour("w01", "peer-w01", "/ip4/10.0.0.2/tcp/4001"),),
        members={"peer-agg": "agg", "peer-w02": "w02", "peer-w01": "w01", "peer-watch": "watcher"},
        shards=shards,
    )


def test_trainers_are_those_for_whom_there_are_data() -> None:
    job = job_of(settings({"b.safetensors": "w02", "a.safetensors": "w01"}))
    assert job.trainers == ("w01", "w02")
    assert job.peers["peer-w01"].full_address == "/ip4/10.0.0.2/tcp/4001/p2p/peer-w01"


def test_without_data_to_seed_all_others_are_trainers() -> None:
    assert job_of(settings({})).trainers == ("w01", "w02", "watcher")


def test_data_for_somebody_who_is_no_member_make_no_trainer() -> None:
    assert job_of(settings({"a.safetensors": "w01", "x.safetensors": "x"})).trainers == ("w01",)


def test_what_the_settings_lack_is_named() -> None:
    with pytest.raises(UsageError, match="agg: an aggregator's settings need test_file and classes"):
        TffLearning(settings({}))
