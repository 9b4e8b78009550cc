"""Grafana for one run: which, what it is told and where it looks, in a container or beside one. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from orchestrator import TOP

IMAGE: Final = "grafana/grafana:11.6.3"  # of the line that the dashboards' library is made for
RELEASES: Final = "11.6 or 12"  # later ones have no Prometheus source of their own, but fetch it
PORT: Final = 3000
HEALTH_PATH: Final = "/api/health"
SOURCE_UID: Final = "shoal-prometheus"  # as in dashboards/panel.py and the provisioning

PROVISIONING: Final = TOP / "compose" / "grafana" / "provisioning"
DASHBOARDS: Final = TOP / "dashboards"
# Where a container has them; read-only, and nothing else is mounted.
INSIDE_PROVISIONING: Final = "/etc/shoal/grafana"
INSIDE_DASHBOARDS: Final = "/etc/shoal/dashboards"
# On tmpfs, since nothing of it is worth keeping; it must be there, for the image makes folders in it only.
INSIDE_DATA: Final = "/tmp"

# What the provisioning asks the environment for.
URL_VARIABLE: Final = "SHOAL_PROMETHEUS_URL"
INTERVAL_VARIABLE: Final = "SHOAL_SCRAPE_INTERVAL"
FOLDER_VARIABLE: Final = "SHOAL_DASHBOARDS"

ALWAYS: Final[Mapping[str, str]] = {
    # Whoever can reach it may look, and nobody may change anything.
    "GF_AUTH_ANONYMOUS_ENABLED": "true",
    "GF_AUTH_ANONYMOUS_ORG_ROLE": "Viewer",
    "GF_AUTH_BASIC_ENABLED": "false",
    "GF_AUTH_DISABLE_LOGIN_FORM": "true",
    "GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION": "true",
    "GF_USERS_ALLOW_SIGN_UP": "false",
    # It tells nobody about us, and fetches nothing.
    "GF_ANALYTICS_ENABLED": "false",
    "GF_ANALYTICS_REPORTING_ENABLED": "false",
    "GF_ANALYTICS_CHECK_FOR_UPDATES": "false",
    "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES": "false",
    "GF_ANALYTICS_FEEDBACK_LINKS_ENABLED": "false",
    "GF_NEWS_NEWS_FEED_ENABLED": "false",
    "GF_SECURITY_DISABLE_GRAVATAR": "true",
    "GF_SNAPSHOTS_EXTERNAL_ENABLED": "false",
    "GF_PLUGINS_PLUGIN_ADMIN_ENABLED": "false",
    "GF_PLUGINS_PREINSTALL_DISABLED": "true",
    "GF_PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED": "true",
    # What a run of minutes needs.
    "GF_DASHBOARDS_MIN_REFRESH_INTERVAL": "1s",
    "GF_UNIFIED_ALERTING_ENABLED": "false",
    "GF_LOG_MODE": "console",
    "GF_LOG_LEVEL": "warn",
}


def environment(
    *,
    prometheus_url: str,
    scrape_interval: str,
    port: int = PORT,
    address: str = "0.0.0.0",  # a container's own, which is published on loopback
    provisioning: str = INSIDE_PROVISIONING,
    dashboards: str = INSIDE_DASHBOARDS,
    data: str = INSIDE_DATA,
    home: str = "learning.json",
) -> dict[str, str]:
    """All that a Grafana needs to know; it has no file of settings of ours."""
    return {
        **ALWAYS,
        "GF_SERVER_HTTP_ADDR": address,
        "GF_SERVER_HTTP_PORT": str(port),
        "GF_PATHS_PROVISIONING": provisioning,
        "GF_PATHS_DATA": data,
        "GF_PATHS_LOGS": f"{data}/log",
        "GF_PATHS_PLUGINS": f"{data}/plugins",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": f"{dashboards}/{home}",
        URL_VARIABLE: prometheus_url,
        INTERVAL_VARIABLE: scrape_interval,
        FOLDER_VARIABLE: dashboards,
    }


def service(prometheus_url: str, scrape_interval: str) -> dict[str, Any]:
    """Its own keys of its service in a Compose file; the image's busybox knocks."""
    knock = ["CMD", "wget", "-q", "-O", "/dev/null", f"http://127.0.0.1:{PORT}{HEALTH_PATH}"]
    return {
        "environment": environment(prometheus_url=prometheus_url, scrape_interval=scrape_interval),
        "volumes": [
            {"type": "bind", "source": here, "target": there, "read_only": True}
            for here, there in mounts().items()
        ],
        "healthcheck": {"test": knock, "interval": "2s", "timeout": "5s", "retries": 30},
    }


def mounts() -> dict[str, str]:
    """What a container is given of ours, by the path on the host and inside; read-only."""
    return {str(PROVISIONING): INSIDE_PROVISIONING, str(DASHBOARDS): INSIDE_DASHBOARDS}
