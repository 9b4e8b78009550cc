from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.contract import UsageError
from node.ipfs.config import Peer, Settings, identity, merged, overrides, parse, swarm_key_text

FILE = Path("/somewhere/ipfs/config")
keys = st.sampled_from(["", "a", "b", "ab", "c"])
leaves = st.sampled_from([None, 0, 1, -7, [], [1], [1, 2]])
twigs = st.dictionaries(keys, leaves, max_size=4)
branches = st.dictionaries(keys, leaves | twigs, max_size=4)
mappings = st.dictionaries(keys, leaves | twigs | branches, max_size=4)


def test_the_swarm_listens_on_data_only_and_the_rpc_on_loopback_only() -> None:
    got = overrides(Settings("10.77.0.3", swarm_port=4002, api_port=5002))["Addresses"]
    assert got == {"Swarm": ["/ip4/10.77.0.3/tcp/4002"], "API": "/ip4/127.0.0.1/tcp/5002", "Gateway": []}


def test_peers_are_written_without_their_id_in_the_address() -> None:
    peer = Peer("12D3x", "/ip4/10.77.0.1/tcp/4001/p2p/12D3x")
    got = overrides(Settings("10.77.0.3", peers=(peer,)))
    assert got["Peering"] == {"Peers": [{"ID": "12D3x", "Addrs": ["/ip4/10.77.0.1/tcp/4001"]}]}
    assert Peer("12D3x", "/ip4/10.77.0.1/tcp/4001").full_address == peer.address == peer.full_address


def test_the_transport_stands_in_the_embedded_daemons_own_section() -> None:
    assert overrides(Settings("10.77.0.3", transport="patient"))["Shoal"] == {"Transport": "patient"}


def test_nothing_that_reaches_outside_is_left_on() -> None:
    got = overrides(Settings("10.77.0.3"))
    assert got["Bootstrap"] == []
    assert got["Routing"]["Type"] == "none"
    for section in ("AutoConf", "AutoTLS", "HTTPRetrieval", "Provide"):
        assert got[section] == {"Enabled": False}
    assert got["Plugins"]["Plugins"]["telemetry"]["Config"] == {"Mode": "off"}
    assert not any(got["Swarm"]["Transports"]["Network"].values())


def test_what_init_wrote_is_kept() -> None:
    written = {
        "Identity": {"PeerID": "12D3x", "PrivKey": "secret"},
        "Swarm": {"ConnMgr": {}, "DisableNatPortMap": False},
    }
    got = merged(written, overrides(Settings("10.77.0.3")))
    assert got["Identity"] == written["Identity"]
    assert got["Swarm"]["ConnMgr"] == {}
    assert got["Swarm"]["DisableNatPortMap"] is True


def test_an_empty_mapping_replaces() -> None:
    assert merged({"DNS": {"Resolvers": {"eth": "x"}}}, {"DNS": {"Resolvers": {}}}) == {
        "DNS": {"Resolvers": {}}
    }


@given(mappings, mappings)
def test_merging_is_idempotent_and_leaves_its_input_alone(one: dict[str, Any], two: dict[str, Any]) -> None:
    before = json.dumps([one, two])
    once = merged(one, two)
    assert merged(once, two) == once
    assert merged(one, {}) == one
    assert json.dumps([one, two]) == before


def test_a_torn_configuration_is_named_with_its_line() -> None:
    with pytest.raises(UsageError, match=r"ipfs/config:2: no valid JSON") as caught:
        parse('{"Identity":\n  {"PeerID": ', FILE)
    assert "/somewhere/ipfs" in caught.value.hint
    with pytest.raises(UsageError, match="must be a JSON object"):
        parse("[]", FILE)


@pytest.mark.parametrize("config", [{}, {"Identity": {}}, {"Identity": {"PeerID": ""}}, {"Identity": 5}])
def test_a_missing_identity_is_named_by_its_key(config: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"Identity\.PeerID"):
        identity(config, FILE)


def test_identity() -> None:
    assert identity({"Identity": {"PeerID": "12D3x"}}, FILE) == "12D3x"


def test_swarm_key() -> None:
    assert swarm_key_text("AB" * 32) == "/key/swarm/psk/1.0.0/\n/base16/\n" + "ab" * 32 + "\n"


def test_a_bad_swarm_key_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError) as caught:
        swarm_key_text("secret" * 10)
    assert "secret" not in str(caught.value).replace("secrets.token_hex", "")
