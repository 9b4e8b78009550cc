"""Whole runs that meet trouble: each ends with the right exit code, says what happened, and leaves nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.run.place import PRIVATE_MOUNTS, RUN_S, TASK, TOP, Place


def test_the_fleet_goes_on_without_the_workers_that_it_lost_and_an_agent_comes_back(place: Place) -> None:
    file = place.scenario(workers=6, more="  - repeatable")
    with place.waiting(file, round_=2) as process:
        place.kill("w04", "trainer")
        place.kill("w05", "ipfs")
        place.kill_node("w06")
        place.kill("agg", "agent")
        place.release(2, process.pid)
        said, _ = process.communicate(timeout=RUN_S)
    results = place.results()
    assert "lost: trainer of w04 ended with -9" in said
    assert "lost: ipfs of w05 ended with -9" in said
    assert "lost: node of w06 ended with -9" in said
    assert "lost: agent of agg ended with -9" in said
    assert len([e for e in place.events("part_started", "agg") if e["part"] == "agent"]) == 2
    assert [event["round"] for event in place.events("round_closed")] == [1, 2, 3]  # each was told once
    assert results["rounds_completed"] == 3
    lost = ["w04", "w05", "w06"]
    assert [round_["missing"] for round_ in results["rounds"]] == [[], lost, lost]
    assert results["final_accuracy"] > 0.9, "the user's own task was not learnt"
    assert (results["repeatable"], results["synthetic_data"]) == (False, False)
    assert results["repeatable_reason"]
    assert [check["state"] for check in results["checks"]] == ["held", "held", "violated"]
    assert (process.returncode, results["exit_code"]) == (1, 1), said


def test_without_its_aggregator_a_run_says_nothing_about_the_checks(place: Place) -> None:
    with place.waiting(place.scenario(workers=1), round_=2) as process:
        place.kill("agg", "aggregator")
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 2, said
    assert "the aggregator's node was lost: aggregator of agg ended with -9" in said
    assert place.results()["verdict"] == "unknown"


def test_a_run_whose_zygote_was_killed_ends_and_says_so(place: Place) -> None:
    with place.waiting(place.scenario(workers=1), round_=2) as process:
        place.kill_zygote()
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 2, said
    assert "the aggregator's node was lost: zygote of agg ended with -9" in said
    assert "Traceback" not in said
    results = place.results()
    assert (results["verdict"], results["rounds_completed"]) == ("unknown", 1)


def test_a_daemon_that_does_not_come_up_is_told_with_its_last_words(place: Place) -> None:
    real = subprocess.run(
        [sys.executable, TOP / "node" / "ipfs" / "build.py"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout.split()[-1]
    broken = place.folder / "ipfsd"
    broken.write_text(
        f'#!/bin/sh\ncase "$1 $IPFS_PATH" in "daemon "*/w01/*) echo "no luck today" >&2; exit 1;; esac\n'
        f'exec {real} "$@"\n'
    )
    broken.chmod(0o755)
    file = place.scenario(workers=1, more="ipfs: embedded")
    status, said = place.run(file, SHOAL_IPFSD=str(broken))
    assert status == 2, said
    assert "the IPFS daemons of w01 ended at their start" in said
    assert "no luck today" in said
    assert "no luck today" in place.results()["failure"]


def test_a_program_that_is_no_daemon_is_refused_before_anything_starts(place: Place) -> None:
    broken = place.folder / "ipfsd"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    status, said = place.run(place.scenario(more="ipfs: embedded"), SHOAL_IPFSD=str(broken))
    assert status == 64
    assert f"{broken} is not the embedded daemon" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TASK + "\nraise RuntimeError('not today')\n", "my_task.py:17: RuntimeError: not today"),
        (TASK.replace("random = ", "random = unknown"), "my_task.py:12: NameError"),
        (TASK.replace("def model", "def other"), "my_task.py: there is no function model()"),
        (TASK.replace("labels[:640]", "labels[:64]"), "x_train has the shape (640, 8) and y_train (64,)"),
        (TASK + "def broken(\n", "my_task.py:16: '(' was never closed"),
    ],
    ids=["raises", "raises in data()", "no model()", "wrong shapes", "no Python"],
)
def test_a_wrong_task_file_is_told_before_anything_starts(place: Place, task: str, message: str) -> None:
    status, said = place.run(place.scenario(task=task))
    assert status == 64, said
    assert message in said
    assert "Traceback" not in said
    assert "starting" not in said
    assert message in place.results()["failure"]


def test_a_model_that_does_not_fit_its_data_is_the_users_mistake(place: Place) -> None:
    status, said = place.run(place.scenario(task=TASK.replace("Input((8,))", "Input((9,))")))
    assert status == 64, said
    assert "my_task.py: model() takes (9,), but an example is (8,)" in said
    assert "Traceback" not in said


def test_a_data_set_that_is_nowhere_is_told_with_the_cure(place: Place) -> None:
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "no_proxy": ""}
    workload = "workload: {dataset: cifar10, rounds: 3}"
    status, said = place.run(
        place.scenario(workload=workload),
        HOME=str(place.folder),
        SHOAL_CACHE=str(place.folder / "cache"),
        **{name.upper(): value for name, value in nowhere.items()},
        **nowhere,
    )
    assert status == 69, said
    assert "cannot fetch https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz" in said
    assert "SHOAL_DATA" in said
    assert "Traceback" not in said


def test_a_full_disk_is_told_with_the_cure(place: Place) -> None:
    folder = place.folder / "tmp"
    mount = f'mount -t tmpfs -o size=256k none "{folder}" && exec "$@"'
    workload = "workload: {dataset: digits, rounds: 3}"
    status, said = place.run(
        place.scenario(workload=workload),
        *PRIVATE_MOUNTS,
        "sh",
        "-c",
        mount,
        "sh",
        TMPDIR=str(folder),
        XDG_RUNTIME_DIR="",
    )
    assert status == 69, said
    assert "No space is left" in said
    assert str(folder) in said
    assert "Traceback" not in said


def test_a_worker_whose_disk_fills_up_is_lost_and_told(place: Place) -> None:
    with place.waiting(place.scenario(workers=3), *PRIVATE_MOUNTS, round_=2, small="w03") as process:
        place.fill_disk("w03", process.pid)
        place.release(2, process.pid)
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 0, said
    assert [round_["missing"] for round_ in place.results()["rounds"]] == [[], ["w03"], ["w03"]]
    assert "w03 in round 2: not handed in" in said
    assert "no space left on device" in said
    assert "Traceback" not in said


def test_a_run_whose_aggregators_disk_fills_up_ends_with_the_cure(place: Place) -> None:
    with place.waiting(place.scenario(workers=1), *PRIVATE_MOUNTS, round_=2, small="agg") as process:
        place.release(1, process.pid)
        place.fill_disk("agg", process.pid)
        place.release(2, process.pid)
        said, _ = process.communicate(timeout=RUN_S)
    assert process.returncode == 69, said
    assert "No space is left" in said
    assert "Traceback" not in said


def test_a_word_that_nobody_knows_is_told_with_its_place_and_the_nearest(place: Place) -> None:
    status, said = place.run(place.scenario(more="networks: {topology: star}"))
    assert status == 64, said
    assert "trouble.yaml:8" in said
    assert "network" in said.partition("networks")[2]
    assert not place.directory.exists()
