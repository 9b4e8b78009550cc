"""What the embedded daemon makes of a full disk, a block gone bad, and what our client may ask of it."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from node.ipfs.cid import Cid
from node.ipfs.client import Client
from node.ipfs.commands import COMMANDS, COMMON
from node.ipfs.engine import find
from node.ipfs.errors import IpfsError
from orchestrator.boxes.box import Box
from tests.fleet.lab import Member, swarm

MIB = 1 << 20
SMALL_DISK_MIB = 16


def move_to_small_disk(member: Member) -> None:
    """Put the stopped daemon's repository on a tmpfs that is soon full."""
    repository = member.daemon.repository
    Box.current().run(
        [
            "sh",
            "-ec",
            f"""
            mv {repository} {repository}.aside
            mkdir {repository}
            mount -t tmpfs -o size={SMALL_DISK_MIB}m tmpfs {repository}
            cp -a {repository}.aside/. {repository}
            """,
        ],
        timeout_s=30,
    )


def block_file(member: Member, cid: str) -> Path:
    """Where flatfs keeps a block: its multihash, without version and codec, in base32, in a folder called after its next-to-last two letters."""
    name = base64.b32encode(Cid.parse(cid).to_bytes()[2:]).decode().rstrip("=")
    return member.daemon.repository / "blocks" / name[-3:-1] / f"{name}.data"


def test_the_daemon_knows_every_option_that_our_client_sends() -> None:
    """It ignores options that it does not know, as Kubo does: a typing error would do nothing."""
    with swarm(find("embedded"), 1) as (member,):
        described = member.call(lambda client: client._rpc.value("commands"))
    common = {name for option in described["Options"] for name in option["Names"]}
    known = {
        command["Name"]: {name for option in command.get("Options", []) for name in option["Names"]}
        for command in described["Subcommands"]
    }
    assert known.keys() >= COMMANDS.keys()
    assert common | {"arg"} >= COMMON
    assert [name for name, options in COMMANDS.items() if options - known[name] - common] == []


def test_a_full_disk_fails_the_add_and_nothing_else() -> None:
    with swarm(find("embedded"), 1) as (member,):
        kept_data = os.urandom(2 * MIB)
        kept = member.call(lambda client: client.add(kept_data, pin=True))
        member.kill()
        move_to_small_disk(member)
        member.start()

        async def too_much(client: Client) -> None:
            with pytest.raises(IpfsError, match="no space left"):
                await client.add(os.urandom(2 * SMALL_DISK_MIB * MIB))

        async def afterwards(client: Client) -> None:
            assert await client.fetch(kept, max_bytes=len(kept_data)) == kept_data
            await client.collect_garbage()
            more = os.urandom(2 * MIB)
            assert await client.fetch(await client.add(more), max_bytes=len(more)) == more

        member.call(too_much)
        member.call(afterwards)
        member.kill()
        member.start()
        assert member.call(lambda client: client.fetch(kept, max_bytes=len(kept_data))) == kept_data
        assert kept in member.call(lambda client: client.pins())
        member.kill()
        Box.current().run(["umount", str(member.daemon.repository)], timeout_s=30)


def test_a_block_gone_bad_is_reported_and_fetched_again() -> None:
    with swarm(find("embedded"), 2) as (one, other):
        data = os.urandom(100_000)
        cid = one.call(lambda client: client.add(data))
        assert other.call(lambda client: client.fetch(cid, max_bytes=len(data))) == data
        file = block_file(other, cid)
        bad = bytearray(file.read_bytes())
        bad[5000] ^= 1
        file.chmod(0o600)
        file.write_bytes(bad)
        assert other.call(lambda client: client.fetch(cid, max_bytes=len(data))) == data
        assert file.read_bytes() == data
        assert "corrupt block removed" in other.daemon.log.read_text()
        assert other.call(lambda client: client.metrics())["shoal_ipfsd_corrupt_blocks_total"] == 1
