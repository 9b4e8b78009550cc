from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
import tarfile
import urllib.parse
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from pyarrow import parquet

from node.contract import HostError, ShoalError
from node.contract.plan import AggregationPlan, NetworkPlan, NodePlan, PartitionPlan, Plan, WorkloadPlan
from orchestrator import host, prometheus_setup
from orchestrator.monitoring import prometheus
from orchestrator.prometheus_setup import RELEASE, VERSION, Prometheus


def plan_of(count: int) -> Plan:
    nodes = tuple(
        NodePlan(f"w{n:03}", ("trainer",), None, None, f"10.77.0.{n}", f"10.77.4.{n}")
        for n in range(1, count + 1)
    )
    return Plan(
        1,
        "baseline",
        "",
        7,
        nodes,
        NetworkPlan("10.77.0.0/22", "10.77.4.0/22", "prompt", ()),
        WorkloadPlan("digits", "cnn", PartitionPlan("iid"), 1, 1, 32, 0.1),
        AggregationPlan("mean", "sync", 1.0, 30.0, {}),
        (),
    )


# -- configuration


def test_each_node_is_scraped_over_ctl_under_its_name() -> None:
    (job,) = yaml.safe_load(prometheus.configuration(plan_of(2)))["scrape_configs"]
    assert job["job_name"] == "node"
    assert job["static_configs"] == [
        {"targets": ["10.77.4.1:7070"], "labels": {"node": "w001"}},
        {"targets": ["10.77.4.2:7070"], "labels": {"node": "w002"}},
    ]


@pytest.mark.parametrize(("count", "interval"), [(1, "1s"), (6, "1s"), (7, "2s"), (51, "5s")])
def test_large_fleets_are_scraped_less_often(count: int, interval: str) -> None:
    timing = yaml.safe_load(prometheus.configuration(plan_of(count)))["global"]
    assert timing == {"scrape_interval": interval, "scrape_timeout": interval}


def test_it_listens_on_loopback_without_the_apis_that_change_it(tmp_path: Path) -> None:
    words = prometheus.argv(Prometheus(Path("/p"), Path("/page")), tmp_path / "c.yml", tmp_path / "data")
    assert words[0] == "/p"
    assert "--web.listen-address=127.0.0.1:9090" in words
    assert "--web.local-assets=/page" in words
    assert not [word for word in words if "admin" in word or "lifecycle" in word]


# -- export


class FakePrometheus:
    """Answers the two questions of an export, and refuses all others."""

    def __init__(self, series: dict[str, list[dict[str, Any]]]) -> None:
        self.series = series

    def get(self, path: str) -> bytes:
        url = urllib.parse.urlsplit(path)
        query = dict(urllib.parse.parse_qsl(url.query))
        if url.path == "/api/v1/label/__name__/values" and not query:
            return self.success(list(self.series))
        assert url.path == "/api/v1/query"
        assert set(query) == {"query", "time"}
        selector, _, window = query["query"].partition("[")
        assert window == "100000ms]"
        name = json.loads(selector.removeprefix("{__name__=").removesuffix("}"))
        return self.success({"resultType": "matrix", "result": self.series[name]})

    @staticmethod
    def success(data: Any) -> bytes:
        return json.dumps({"status": "success", "data": data}).encode()


def test_the_last_scrape_is_waited_for() -> None:
    answers = [[], [{"metric": {}, "value": [8.0, "2"]}], [{"metric": {}, "value": [8.5, "3"]}]]
    asked = []

    def get(path: str) -> bytes:
        asked.append(urllib.parse.unquote_plus(path))
        return FakePrometheus.success({"resultType": "vector", "result": answers.pop(0)})

    assert prometheus.wait_scraped(get, 3, since_s=7.5, timeout_s=60)
    assert asked == ["/api/v1/query?query=count(timestamp(up) >= 7.500)"] * 3


def test_targets_that_are_not_scraped_are_not_waited_for_for_ever() -> None:
    none = FakePrometheus.success({"resultType": "vector", "result": []})
    assert not prometheus.wait_scraped(lambda _: none, 1, since_s=7.5, timeout_s=0)


ROUND = {
    "metric": {"__name__": "shoal_round", "node": "w2", "job": "node"},
    "values": [[1.5, "1"], [2.5, "NaN"]],
}
OTHER = {"metric": {"__name__": "shoal_round", "node": "w1", "job": "node"}, "values": [[2.25, "+Inf"]]}


def test_every_sample_leaves_as_it_was_scraped(tmp_path: Path) -> None:
    fake = FakePrometheus({"shoal_round": [ROUND, OTHER], "up:a": [ROUND], "gone": []})
    made = prometheus.export(fake.get, tmp_path / "series", since_s=0, until_s=100, form="csv")
    assert [(e.name, e.file, e.samples) for e in made] == [
        ("shoal_round", "shoal_round.csv", 3),
        ("up:a", "up%3Aa.csv", 2),
    ]
    assert sorted(p.name for p in (tmp_path / "series").iterdir()) == ["shoal_round.csv", "up%3Aa.csv"]
    lines = (tmp_path / "series" / "shoal_round.csv").read_text().splitlines()
    assert list(csv.reader(lines)) == [
        ["time", "labels", "value"],
        ["2.250", '{"job":"node","node":"w1"}', "inf"],
        ["1.500", '{"job":"node","node":"w2"}', "1.0"],
        ["2.500", '{"job":"node","node":"w2"}', "nan"],
    ]


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    prometheus.export(FakePrometheus({"shoal_round": [OTHER, ROUND]}).get, tmp_path, since_s=0, until_s=100)
    table = parquet.read_table(tmp_path / "shoal_round.parquet")
    assert table.column_names == ["time", "labels", "value"]
    assert [moment.timestamp() for moment in table["time"].to_pylist()] == [2.25, 1.5, 2.5]
    assert table["labels"].to_pylist()[0] == '{"job":"node","node":"w1"}'
    assert table["value"].to_pylist()[:2] == [float("inf"), 1.0]


@pytest.mark.parametrize("answer", [b"<html>", b'{"status":"error","error":"too many samples"}'])
def test_an_answer_that_is_none_is_told(tmp_path: Path, answer: bytes) -> None:
    with pytest.raises(ShoalError, match=r"html|too many samples"):
        prometheus.export(lambda _: answer, tmp_path)


# -- where it comes from


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder that a web server on loopback shows: the release as its publisher would lay it out."""
    folder = tmp_path / "site" / f"v{VERSION}"
    folder.mkdir(parents=True)
    with tarfile.open(folder / f"{RELEASE}.tar.gz", "w:gz") as tar:
        for name in ("prometheus", "promtool", "../../outside"):
            member = tarfile.TarInfo(f"{RELEASE}/{name}")
            content = f"#!/bin/sh\necho {name}\n".encode()
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive = folder / f"{RELEASE}.tar.gz"
    checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
    (folder / "sha256sums.txt").write_text(f"{'0' * 64}  other.tar.gz\n{checksum}  {archive.name}\n")
    handler = partial(QuietHandler, directory=str(tmp_path / "site"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that programs are looked for in."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(host, "search_path", lambda: str(folder))
    return folder


def program(file: Path, script: str) -> None:
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


class Runner:
    """Runs commands with the fake programs before the real ones, and remembers them."""

    def __init__(self, programs: Path) -> None:
        self._path = f"{programs}:/usr/bin:/bin"
        self.commands: list[list[str]] = []

    def __call__(self, command: list[str], complaint: str, hint: str) -> None:
        self.commands.append(command)
        if subprocess.run(command, env={"PATH": self._path}, check=False).returncode:
            raise HostError(complaint, hint)


def test_the_one_on_path_is_taken(tmp_path: Path, programs: Path) -> None:
    program(programs / "prometheus", "")
    run = Runner(programs)
    said: list[str] = []
    found = prometheus_setup.bring(tmp_path / "cache", run, said.append, "http://127.0.0.1:1")
    assert (found, run.commands, said) == (Prometheus(programs / "prometheus", None), [], [])


def test_the_release_is_taken_when_its_checksum_is_right(
    tmp_path: Path, programs: Path, site: tuple[Path, str]
) -> None:
    cache = tmp_path / "cache"
    brought = prometheus_setup.bring(cache, Runner(programs), print, site[1])
    assert brought == Prometheus(cache / RELEASE / "prometheus", None)
    assert sorted(p.name for p in (cache / RELEASE).iterdir()) == ["prometheus", "promtool"]
    assert [p.name for p in cache.iterdir()] == [RELEASE]
    assert not list(tmp_path.rglob("outside"))
    # the second time nothing is asked for
    assert prometheus_setup.bring(cache, Runner(programs), print, "http://127.0.0.1:1") == brought


@pytest.mark.parametrize("fault", ["changed", "truncated", "unlisted", "missing"])
def test_a_release_that_cannot_be_trusted_leaves_nothing(
    tmp_path: Path, programs: Path, site: tuple[Path, str], fault: str
) -> None:
    folder, url = site
    archive, sums = folder / f"{RELEASE}.tar.gz", folder / "sha256sums.txt"
    if fault == "changed":
        archive.write_bytes(archive.read_bytes() + b"x")
    elif fault == "truncated":
        archive.write_bytes(archive.read_bytes()[:50])
        sums.write_text(f"{hashlib.sha256(archive.read_bytes()).hexdigest()}  {archive.name}\n")
    elif fault == "unlisted":
        sums.write_text(f"{'0' * 64}  other.tar.gz\n")
    else:
        sums.unlink()
    said: list[str] = []
    with pytest.raises(HostError, match="no apt-get"):
        prometheus_setup.bring(tmp_path / "cache", Runner(programs), said.append, url)
    assert list((tmp_path / "cache").iterdir()) == []
    assert "taking Debian's package instead" in said[-1]


DOWNLOAD = r"""
[ "$*" != "-qq -o APT::Sandbox::User=root download prometheus" ] && [ "$*" != "-qq download prometheus" ] || { : > prometheus_1.deb; exit 0; }
case "$*" in *download*) [ -z "$BARE" ] || exit 100; : > libjs-jquery_1.deb ;; *) exit 9 ;; esac
"""
EXTRACT = r"""
[ "$1" = --extract ] || exit 9
case "$2" in
*prometheus_1.deb) mkdir -p "$3/usr/bin" && printf '#!/bin/sh\n' > "$3/usr/bin/prometheus" && chmod 755 "$3/usr/bin/prometheus" ;;
*) mkdir -p "$3/usr/share/javascript" ;;
esac
"""


def test_debians_package_is_unpacked_and_not_installed(tmp_path: Path, programs: Path) -> None:
    program(programs / "apt-get", DOWNLOAD)
    program(programs / "dpkg", EXTRACT)
    run, cache = Runner(programs), tmp_path / "cache"
    brought = prometheus_setup.bring(cache, run, print, "http://127.0.0.1:1")
    root = cache / "debian"
    assert brought == Prometheus(root / "usr/bin/prometheus", root / "usr/share/prometheus/web")
    assert (root / "usr/share/javascript").is_dir()
    assert [p.name for p in cache.iterdir()] == ["debian"]
    assert not [command for command in run.commands if "install" in command]


def test_without_the_pages_scripts_it_is_taken_all_the_same(tmp_path: Path, programs: Path) -> None:
    program(programs / "apt-get", "BARE=1\n" + DOWNLOAD)
    program(programs / "dpkg", EXTRACT)
    said: list[str] = []
    # without root there is no renewing of lists
    assert prometheus_setup.bring(tmp_path / "cache", Runner(programs), said.append, "http://127.0.0.1:1")
    assert any("page in the browser will be bare" in line for line in said)


def test_an_apt_that_fails_leaves_nothing(tmp_path: Path, programs: Path) -> None:
    program(programs / "apt-get", "exit 100")
    program(programs / "dpkg", "exit 9")
    with pytest.raises(HostError, match="apt-get cannot") as caught:
        prometheus_setup.bring(tmp_path / "cache", Runner(programs), print, "http://127.0.0.1:1")
    assert "sudo apt-get update" in caught.value.hint
    assert list((tmp_path / "cache").iterdir()) == []
