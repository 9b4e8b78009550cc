from __future__ import annotations

from pathlib import Path

import pytest

from node.contract import HostError
from orchestrator import doctor, host, prometheus_setup, setup
from orchestrator.boxes import cgroups
from orchestrator.doctor import Finding
from orchestrator.prometheus_setup import Prometheus

HERE = cgroups.Place(2, Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup"))


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr(setup, "check_machine", lambda: None)
    monkeypatch.setattr(setup, "is_ready", lambda: True)
    monkeypatch.setattr(setup, "missing_tools", list)
    monkeypatch.setattr(prometheus_setup, "find", lambda folder: Prometheus(folder / "prometheus", None))
    monkeypatch.setattr(doctor, "_try_box", lambda: None)
    monkeypatch.setattr(doctor, "_docker", lambda: Finding("docker", True, "engine 28.1.0, Compose 2.40.3"))
    monkeypatch.setattr(
        cgroups, "attempt", lambda: {"cpu": HERE, "memory": cgroups.Refused("not ours", "root")}
    )
    return monkeypatch


def found() -> dict[str, Finding]:
    return {finding.name: finding for finding in doctor.examine()}


def test_a_good_host_has_one_good_line_per_check(healthy: pytest.MonkeyPatch) -> None:
    findings = list(doctor.examine())
    assert all(finding.is_good and not finding.cure for finding in findings)
    tools = [tool.program for tool in (*host.TOOLS, *setup.RUN_TOOLS)]
    others = ["prometheus", "cpu limits", "memory limits", "docker"]
    assert [finding.name for finding in findings] == ["machine", "python", *tools, *others, "box"]


def test_a_limit_that_cannot_be_enforced_is_told_and_keeps_nobody_from_running(
    healthy: pytest.MonkeyPatch,
) -> None:
    findings = found()
    assert findings["cpu limits"] == Finding("cpu limits", True, "enforced by cgroup v2")
    assert findings["memory limits"].said == "not enforced: not ours; cure: root"
    assert findings["memory limits"].is_good


def test_the_step_at_which_the_box_failed_and_its_cure(healthy: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise HostError("No box: mounting /proc failed: masked", "start it with --privileged")

    healthy.setattr(doctor, "_try_box", fail)
    said = "No box: mounting /proc failed: masked"
    assert found()["box"] == Finding("box", False, said, "start it with --privileged")


def test_a_missing_program_is_named_with_its_package_and_no_box_is_tried(
    healthy: pytest.MonkeyPatch,
) -> None:
    missing = host.Tool("iptables", "iptables")
    healthy.setattr(setup, "missing_tools", lambda: [missing])

    def never() -> None:
        raise AssertionError("the box was tried")

    healthy.setattr(doctor, "_try_box", never)
    findings = found()
    assert (findings["iptables"].is_good, findings["ip"].is_good) == (False, True)
    assert "iptables" in findings["iptables"].cure
    assert not findings["box"].is_good


def test_an_environment_that_is_not_the_locks(healthy: pytest.MonkeyPatch) -> None:
    healthy.setattr(setup, "is_ready", lambda: False)
    assert found()["python"].cure == "run `make setup`"


def test_a_missing_prometheus_is_cured_by_the_set_up(healthy: pytest.MonkeyPatch) -> None:
    healthy.setattr(prometheus_setup, "find", lambda _: None)
    finding = found()["prometheus"]
    assert not finding.is_good
    assert finding.cure.startswith("run `make setup`, or install Prometheus")


def test_what_this_user_may_not_read_stops_none_of_the_checks(healthy: pytest.MonkeyPatch) -> None:
    def forbidden() -> bool:
        raise PermissionError(13, "Permission denied", "python")

    healthy.setattr(setup, "is_ready", forbidden)
    findings = found()
    assert findings["python"].said.endswith("Permission denied: 'python'")
    assert "this user may read" in findings["python"].cure
    assert findings["box"].is_good


def test_a_host_without_docker_holds_fleets_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    finding = doctor._docker()
    assert finding.is_good
    assert finding.said.startswith("not used: No Docker engine answers at /nowhere/docker.sock")
    assert "--driver netns" in finding.cure
