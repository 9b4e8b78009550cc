"""`shoal dashboards`: a finished run in a Prometheus of its own, and Grafana on it where there is one."""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from node.contract import ExitCode, UsageError
from orchestrator import process
from orchestrator.monitoring import gallery, grafana, grafana_server, openmetrics, panels, prometheus
from orchestrator.monitoring import server as servers
from orchestrator.monitoring.chart import Frame
from orchestrator.monitoring.panels import Asked, Window
from orchestrator.monitoring.server import Server
from orchestrator.planning import listing
from orchestrator.runs import finished

TAKEN_IN_S: Final = 300.0
FOREVER: Final = "36500d"  # else Prometheus would remove what is older than two weeks
SHOWN_GRAPHS: Final = 6  # of a dashboard in Prometheus' own page
SPARE_S: Final = 1.0  # on both sides of what was scraped


def main(options: argparse.Namespace) -> int:
    """Show a finished run until Ctrl-C, or ask every query once."""
    directory = finished.find(options.finished)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # `kill` ends it in order, as Ctrl-C does
    with tempfile.TemporaryDirectory(prefix="shoal-dashboards-") as temporary:
        folder = Path(temporary)
        window = take_in(directory, folder)
        with ExitStack() as ending:
            server = ending.enter_context(served(folder))
            print(f"{listing.shown(directory)}, {said(window)}")
            if options.check:
                return check(server, window)
            if options.html:
                return draw(server, window, directory, Path(options.html))
            show(server, window, folder, ending)
            wait_interrupt("Ctrl-C ends it")
    return ExitCode.HELD


def take_in(directory: Path, folder: Path) -> Window:
    """Make Prometheus' own blocks of what the run exported."""
    series = directory / "series"
    if not series.is_dir():
        raise UsageError(
            f"{listing.shown(directory)} has no series",
            "while a run lives its own Prometheus has them, at the URL that it printed; "
            "a run that was killed leaves none",
        )
    text = folder / "series.txt"
    with text.open("w") as out:
        written = openmetrics.write(series, out)
    if not written.samples:
        raise UsageError(f"{listing.shown(series)} holds no samples", "the run ended before it was scraped")
    promtool = prometheus.find().binary.with_name("promtool")
    words = ["tsdb", "create-blocks-from", "openmetrics", "--quiet", str(text), str(folder / "data")]
    process.run([str(promtool), *words], timeout_s=TAKEN_IN_S)
    text.unlink()
    nodes = len(json.loads((directory / "plan.json").read_text())["nodes"])
    every_s = float(prometheus.scrape_interval(nodes).removesuffix("s"))
    return Window(written.since_s, written.until_s, every_s)


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """Prometheus on what was taken in; it scrapes nothing."""
    configuration = folder / "prometheus.yml"
    configuration.write_text("scrape_configs: []\n")
    port = servers.free_port()
    argv = prometheus.argv(prometheus.find(), configuration, folder / "data", port=port)
    argv.append(f"--storage.tsdb.retention.time={FOREVER}")
    with servers.started("Prometheus", argv, port, "/-/ready", folder / "prometheus.log") as server:
        yield server


def draw(server: Server, window: Window, directory: Path, file: Path) -> int:
    """Write all panels as one page."""
    dashboards = panels.dashboards()

    def ask(dashboard: dict[str, Any], asked: Asked) -> Any:
        return prometheus.data_of(server.get(panels.path(asked, dashboard, window)))

    found = {
        (dashboard["title"], panel["id"]): [
            ask(dashboard, a) for a in panels.of_panel(dashboard["title"], panel)
        ]
        for dashboard in dashboards.values()
        for panel in dashboard["panels"]
    }
    home = dashboards[panels.HOME]
    marks = [ask(home, asked) for asked in panels.all_marks(home)]
    frame = Frame(window.since_s, window.until_s, window.step_s)
    title = f"{directory.parent.name}, {directory.name}"
    try:
        file.write_text(gallery.page(title, dashboards, found, marks, frame))
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror}", "name another file") from error
    print(f"wrote {listing.shown(file)}; open it in a browser")
    return ExitCode.HELD


def answers(server: Server, window: Window) -> Iterator[tuple[Asked, bool]]:
    """Every query of every dashboard, and whether there were data."""
    for dashboard in panels.dashboards().values():
        for asked in panels.all_asked(dashboard):
            data = prometheus.data_of(server.get(panels.path(asked, dashboard, window)))
            yield asked, panels.has_data(asked, data)


def check(server: Server, window: Window) -> int:
    """Say which queries found nothing; unknown where no reason is known for that."""
    count, unexplained = 0, 0
    for asked, found in answers(server, window):
        count += 1
        if not found:
            unexplained += asked.nothing is None
            print(f"no data: {asked}" + (f" ({asked.nothing})" if asked.nothing else f": {asked.expr}"))
    print(f"{count} queries were asked; {unexplained} found nothing that should have")
    return ExitCode.UNKNOWN if unexplained else ExitCode.HELD


def show(server: Server, window: Window, folder: Path, ending: ExitStack) -> None:
    """Start Grafana where there is one, and say where to look."""
    program = grafana_server.find()
    if program is not None:
        shown = ending.enter_context(grafana_server.started(program, server, window, folder))
        print(f"Grafana: {shown.url}")
        for dashboard in panels.dashboards().values():
            print(f"  {dashboard['title']:<40} {shown.url}{dashboard_path(dashboard, window)}")
    else:
        print(
            f"There is no Grafana here; {grafana_server.PROGRAM_VARIABLE} may name the program of an unpacked"
            f" release, {grafana.RELEASES}. Prometheus' own page draws the same queries."
        )
    print(f"Prometheus: {server.url}")
    for dashboard in panels.dashboards().values():
        print(f"  {dashboard['title']:<40} {server.url}{graph_path(dashboard, window)}")


def dashboard_path(dashboard: dict[str, Any], window: Window) -> str:
    """A dashboard at the run's time."""
    times = {"from": round((window.since_s - SPARE_S) * 1000), "to": round((window.until_s + SPARE_S) * 1000)}
    return f"/d/{dashboard['uid']}?" + urllib.parse.urlencode(times)


def graph_path(dashboard: dict[str, Any], window: Window) -> str:
    """The first lines of a dashboard as graphs of Prometheus' page."""
    drawn = [asked for asked in panels.all_asked(dashboard) if not asked.is_instant and asked.label is None]
    words: dict[str, str] = {}
    for index, asked in enumerate(drawn[:SHOWN_GRAPHS]):
        words |= {
            f"g{index}.expr": panels.filled_in(asked.expr, dashboard, window),
            f"g{index}.tab": "0",
            f"g{index}.range_input": f"{window.until_s - window.since_s + 2 * SPARE_S:.0f}s",
            f"g{index}.end_input": clock(window.until_s + SPARE_S),
        }
    return "/graph?" + urllib.parse.urlencode(words)


def said(window: Window) -> str:
    return (
        f"{clock(window.since_s)} to {clock(window.until_s)} UTC, "
        f"{window.until_s - window.since_s:.0f} s, scraped every {window.scraped_every_s:g} s"
    )


def clock(time_s: float) -> str:
    """As Prometheus' page takes it."""
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%d %H:%M:%S")


def wait_interrupt(said: str) -> None:
    """Say so, and wait until Ctrl-C, which may come as soon as it is said."""
    try:
        print(said, flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        return
