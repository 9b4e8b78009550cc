"""What Grafana is told fits what it is provisioned with, and what the dashboards ask for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from node.contract import HostError
from orchestrator import host
from orchestrator.monitoring import grafana, grafana_server, panels
from orchestrator.monitoring.panels import Window

SOURCES = grafana.PROVISIONING / "datasources" / "prometheus.yaml"
PROVIDERS = grafana.PROVISIONING / "dashboards" / "shoal.yaml"


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


def test_grafana_is_provisioned_with_these_files_and_no_others() -> None:
    assert set(grafana.PROVISIONING.rglob("*.yaml")) == {SOURCES, PROVIDERS}
    assert read(SOURCES)["apiVersion"] == read(PROVIDERS)["apiVersion"] == 1


def test_the_dashboards_name_the_source_that_there_is() -> None:
    (source,) = read(SOURCES)["datasources"]
    assert (source["type"], source["uid"], source["isDefault"]) == ("prometheus", grafana.SOURCE_UID, True)
    for dashboard in panels.dashboards().values():
        asked = [panel["datasource"]["uid"] for panel in dashboard["panels"] if panel["type"] != "row"]
        assert set(asked) == {source["uid"]}


def test_every_variable_of_the_provisioning_is_set() -> None:
    told = grafana.environment(prometheus_url="http://prometheus:9090", scrape_interval="2s")
    wanted = set(re.findall(r": \$(\w+)", SOURCES.read_text() + PROVIDERS.read_text()))
    assert wanted == {grafana.URL_VARIABLE, grafana.INTERVAL_VARIABLE, grafana.FOLDER_VARIABLE}
    assert wanted <= set(told)
    assert told[grafana.URL_VARIABLE] == "http://prometheus:9090"
    assert told[grafana.INTERVAL_VARIABLE] == "2s"


def test_a_container_finds_what_it_is_told_of() -> None:
    told = grafana.environment(prometheus_url="http://prometheus:9090", scrape_interval="2s")
    inside = {there: Path(here) for here, there in grafana.mounts().items()}
    assert inside[told["GF_PATHS_PROVISIONING"]] == grafana.PROVISIONING
    folder, _, home = told["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"].rpartition("/")
    assert told[grafana.FOLDER_VARIABLE] == folder
    assert (inside[folder] / home).is_file()


def test_the_service_of_a_compose_file() -> None:
    made = grafana.service("http://prometheus:9090", "2s")
    assert {volume["target"]: volume["source"] for volume in made["volumes"]} == {
        there: here for here, there in grafana.mounts().items()
    }
    assert all(volume["read_only"] for volume in made["volumes"])
    assert made["environment"][grafana.URL_VARIABLE] == "http://prometheus:9090"
    # The root is read-only, and the image makes the plugins' folder without those above it.
    told = made["environment"]
    assert told["GF_PATHS_DATA"] == str(Path(told["GF_PATHS_PLUGINS"]).parent) == "/tmp"
    assert made["healthcheck"]["test"][-1] == "http://127.0.0.1:3000/api/health"


def test_nobody_may_change_anything_and_nothing_is_told_to_anybody() -> None:
    told = grafana.environment(prometheus_url="http://prometheus:9090", scrape_interval="2s")
    assert told["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    off = ("ANALYTICS_REPORTING_ENABLED", "ANALYTICS_CHECK_FOR_UPDATES", "USERS_ALLOW_SIGN_UP")
    assert {told[f"GF_{name}"] for name in off} == {"false"}
    assert re.fullmatch(r"grafana/grafana:\d+\.\d+\.\d+", grafana.IMAGE)


def test_a_dashboard_of_the_past_begins_at_the_runs_time() -> None:
    assert grafana_server.of_run(Window(1795295506.746, 1795295548.0, 1.0)) == {
        "time": {"from": "2026-11-21T21:11:46.746Z", "to": "2026-11-21T21:12:28.000Z"},
        "refresh": "",
    }


def program(folder: Path, name: str = "grafana") -> Path:
    """An unpacked release, in small."""
    (folder / "bin").mkdir()
    (folder / "conf").mkdir()
    (folder / "conf" / "defaults.ini").touch()
    file = folder / "bin" / name
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return file


def test_the_program_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = program(tmp_path)
    monkeypatch.setenv("SHOAL_GRAFANA", str(named))
    assert grafana_server.find() == named
    monkeypatch.setenv("SHOAL_GRAFANA", str(tmp_path / "gone"))
    with pytest.raises(HostError, match="gone, which is no program"):
        grafana_server.find()


def test_a_program_on_path_may_be_named_by_its_name_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = program(tmp_path, "grafana-12")
    monkeypatch.setenv("SHOAL_GRAFANA", "grafana-12")
    monkeypatch.setattr(host, "search_path", lambda: str(tmp_path / "bin"))
    assert grafana_server.find() == named


def test_the_program_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOAL_GRAFANA", raising=False)
    monkeypatch.setattr(host, "search_path", lambda: str(tmp_path / "bin"))
    assert grafana_server.find() is None
    on_path = program(tmp_path, "grafana-server")
    assert grafana_server.find() == on_path


def test_how_it_is_started(tmp_path: Path) -> None:
    one = program(tmp_path)
    assert grafana_server.argv(one) == [str(one), "server", f"--homepath={tmp_path}"]
    old = one.rename(one.with_name("grafana-server"))
    assert grafana_server.argv(old) == [str(old), f"--homepath={tmp_path}"]


def test_a_program_without_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grafana_server, "PACKAGED_HOME", tmp_path / "none")
    one = program(tmp_path)
    (tmp_path / "conf" / "defaults.ini").unlink()
    with pytest.raises(HostError, match="has no pages"):
        grafana_server.argv(one)
