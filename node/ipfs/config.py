"""The daemon's configuration: pure functions from settings to what stands in its folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from node.contract import UsageError

INIT_PROFILES: Final = "autoconf-off,announce-off,unixfs-v1-2025"
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True)
class Peer:
    """Another daemon: its identity and one address of it, with or without /p2p/<ID>."""

    peer_id: str
    address: str

    @property
    def full_address(self) -> str:
        return f"{self.bare_address}/p2p/{self.peer_id}"

    @property
    def bare_address(self) -> str:
        return self.address.split("/p2p/")[0]


@dataclass(frozen=True)
class Settings:
    """What differs between daemons."""

    data_address: str  # the swarm listens here only
    swarm_port: int = 4001
    api_port: int = 5001
    transport: str = "prompt"
    peers: tuple[Peer, ...] = ()

    @property
    def swarm_address(self) -> str:
        return f"/ip4/{self.data_address}/tcp/{self.swarm_port}"


def overrides(settings: Settings) -> dict[str, Any]:
    """What is merged into the configuration that `init` wrote.

    A private swarm over TCP, and nothing that asks or tells anybody outside. Kubo ignores keys
    that it does not know, so the embedded daemon's own stand beside the others.
    """
    return {
        "AutoConf": {"Enabled": False},
        "Bootstrap": [],
        "DNS": {"Resolvers": {}},
        "Routing": {"Type": "none", "DelegatedRouters": []},
        "Ipns": {"DelegatedPublishers": []},
        "AutoTLS": {"Enabled": False},
        "AutoNAT": {"ServiceMode": "disabled"},
        "HTTPRetrieval": {"Enabled": False},
        "Discovery": {"MDNS": {"Enabled": False}},
        "Swarm": {
            "DisableNatPortMap": True,
            "EnableHolePunching": False,
            "RelayClient": {"Enabled": False},
            "RelayService": {"Enabled": False},
            "Transports": {
                "Network": {
                    "QUIC": False,
                    "WebTransport": False,
                    "WebRTCDirect": False,
                    "Websocket": False,
                    "Relay": False,
                }
            },
            "ResourceMgr": {"MaxMemory": "256MB"},
        },
        "Provide": {"Enabled": False},
        "Version": {"SwarmCheckEnabled": False},
        "Addresses": {
            "Swarm": [settings.swarm_address],
            "API": f"/ip4/{LOOPBACK}/tcp/{settings.api_port}",
            "Gateway": [],
        },
        "Peering": {"Peers": [{"ID": p.peer_id, "Addrs": [p.bare_address]} for p in settings.peers]},
        "Pubsub": {"Enabled": True},
        "Experimental": {"Libp2pStreamMounting": True},
        "Internal": {"ShutdownTimeout": "10s"},
        "Plugins": {"Plugins": {"telemetry": {"Config": {"Mode": "off"}}}},
        "Shoal": {"Transport": settings.transport},
    }


def merged(config: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """`new` over `config`, key by key; lists, scalars and empty mappings replace."""
    result = deepcopy(dict(config))
    for name, value in new.items():
        old = result.get(name)
        if isinstance(value, Mapping) and value and isinstance(old, Mapping):
            result[name] = merged(old, value)
        else:
            result[name] = deepcopy(value)
    return result


def parse(text: str, file: Path) -> dict[str, Any]:
    """The configuration in `text`; a mistake is named with its line."""
    cure = f"repair it, or remove {file.parent} (identity and data with it)"
    try:
        config = json.loads(text)
    except json.JSONDecodeError as err:
        raise UsageError(f"{file}:{err.lineno}: no valid JSON: {err.msg} (column {err.colno})", cure) from err
    if not isinstance(config, dict):
        raise UsageError(f"{file}:1: the configuration must be a JSON object", cure)
    return config


def identity(config: Mapping[str, Any], file: Path) -> str:
    """The peer ID that `init` gave this daemon."""
    section = config.get("Identity")
    peer_id = section.get("PeerID") if isinstance(section, Mapping) else None
    if not isinstance(peer_id, str) or not peer_id:
        raise UsageError(f"{file}: key Identity.PeerID is missing", f"remove {file.parent} to begin anew")
    return peer_id


def swarm_key_text(key_hex: str) -> str:
    """The content of swarm.key for a key of 64 hexadecimal digits."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", key_hex):
        raise UsageError(  # never with the key in the message
            "a swarm key must be 64 hexadecimal digits", "secrets.token_hex(32) makes one"
        )
    return f"/key/swarm/psk/1.0.0/\n/base16/\n{key_hex.lower()}\n"
