"""A Grafana of this host: where it is, and how it is started on a Prometheus."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from node.contract import HostError
from orchestrator import host
from orchestrator.monitoring import grafana, panels, server
from orchestrator.monitoring.panels import Window
from orchestrator.monitoring.server import LOOPBACK, Server

PROGRAM_VARIABLE: Final = "SHOAL_GRAFANA"
PROGRAMS: Final = ("grafana", "grafana-server")
PACKAGED_HOME: Final = Path("/usr/share/grafana")
DEFAULTS: Final = Path("conf/defaults.ini")  # what its home folder is known by


def find() -> Path | None:
    """The program that the environment names, else the one on PATH; nothing where there is none."""
    named = os.environ.get(PROGRAM_VARIABLE)
    if named:
        program = shutil.which(named, path=host.search_path())
        if program is None:
            raise HostError(
                f"{PROGRAM_VARIABLE} is {named}, which is no program", "unset it, or name Grafana's"
            )
        return Path(program).absolute()
    found = (shutil.which(program, path=host.search_path()) for program in PROGRAMS)
    return next((Path(path) for path in found if path is not None), None)


def argv(program: Path) -> list[str]:
    """How it is started; it must be told where its own pages are."""
    homes = (program.resolve().parents[1], PACKAGED_HOME)
    home = next((home for home in homes if (home / DEFAULTS).is_file()), None)
    if home is None:
        raise HostError(
            f"{program} has no pages: there is no {DEFAULTS} in {' or '.join(map(str, homes))}",
            f"unpack Grafana's release, and let {PROGRAM_VARIABLE} name the program in its bin/",
        )
    server_word = [] if program.name == "grafana-server" else ["server"]
    return [str(program), *server_word, f"--homepath={home}"]


@contextmanager
def started(program: Path, prometheus: Server, window: Window, folder: Path) -> Iterator[Server]:
    """Grafana with the dashboards of a finished run, which begin at the run's own time."""
    copies = folder / "dashboards"
    copies.mkdir()
    for name, dashboard in panels.dashboards().items():
        (copies / f"{name}.json").write_text(json.dumps({**dashboard, **of_run(window)}))
    port = server.free_port()
    env = grafana.environment(
        prometheus_url=prometheus.url,
        scrape_interval=f"{window.scraped_every_s:g}s",
        port=port,
        address=LOOPBACK,
        provisioning=str(grafana.PROVISIONING),
        dashboards=str(copies),
        data=str(folder / "grafana"),
    )
    log = folder / "grafana.log"
    with server.started("Grafana", argv(program), port, grafana.HEALTH_PATH, log, env) as running:
        yield running


def of_run(window: Window) -> dict[str, object]:
    """What is different in a dashboard of the past: its time, and that nothing comes any more."""
    times = {"from": iso(window.since_s), "to": iso(window.until_s)}
    return {"time": times, "refresh": ""}


def iso(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
