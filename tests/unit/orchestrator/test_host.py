from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import host


def settings(monkeypatch: pytest.MonkeyPatch, user: int, **values: str) -> None:
    monkeypatch.setattr(host, "_sysctl", lambda name: values.get(name.rpartition("/")[2]))
    monkeypatch.setattr("os.geteuid", lambda: user)


@pytest.mark.parametrize(
    ("name", "value", "cure"),
    [
        ("apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
        ("unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ("max_net_namespaces", "0", "user.max_net_namespaces=15000"),
    ],
)
def test_the_setting_that_forbids_the_box_is_named(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, cure: str
) -> None:
    settings(monkeypatch, 1000, **{name: value})
    assert cure in host.cure_for_box("making namespaces")


def test_settings_for_ordinary_users_do_not_bind_root(monkeypatch: pytest.MonkeyPatch) -> None:
    settings(monkeypatch, 0, apparmor_restrict_unprivileged_userns="1", unprivileged_userns_clone="0")
    assert "sysctl" not in host.cure_for_box("making namespaces")


def test_a_masked_proc_means_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    settings(monkeypatch, 1000)
    assert "--privileged" in host.cure_for_box("mounting /proc")


def test_missing_tools_are_found_and_cured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for program in ("ip", "tc", "unshare", "nsenter"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setattr(host, "SYSTEM_FOLDERS", ())
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = host.missing_tools()
    assert [tool.program for tool in missing] == ["setpriv", "iptables"]
    assert "iptables util-linux" in host.cure_for(missing)


def test_the_systems_folders_are_searched_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/mine:/usr/bin")
    assert host.search_path() == "/mine:/usr/bin:/usr/local/sbin:/usr/sbin:/sbin:/bin"
