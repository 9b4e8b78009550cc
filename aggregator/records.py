"""The chain of round records: DAG-CBOR nodes with links, and `head`, which names the newest."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, Protocol, cast

from aggregator.rounds import Refused, Round
from node.contract import HostError, ShoalError
from node.contract.messages import Refusal, Signed
from node.contract.schema import canonical, from_json

KIND: Final = "shoal/round/1"
HEAD_FILE: Final = "head"
# Models and updates of so many newest records stay; what is older is only named.
KEPT_RECORDS: Final = 2


class Objects(Protocol):
    """The calls of an IPFS client that the chain makes."""

    async def put_node(self, dag_json: bytes) -> str: ...

    async def get_node(self, path: str) -> Any: ...

    async def pin(self, cid: str, *, recursive: bool = True) -> None: ...


@dataclass(frozen=True)
class Taken:
    """An update that is part of the model."""

    sender: str
    signed: Signed


@dataclass(frozen=True)
class Record:
    run: str
    round: int  # the version of the model; a round that made none repeats its predecessor's
    attempt: int
    strategy: str
    predecessors: tuple[str, ...]
    bases: tuple[str, ...]
    model: str
    size_bytes: int
    states: dict[str, str]  # name → CID of stored bytes
    asked: tuple[str, ...] = ()
    needed: int = 0
    closed_by: Literal["all", "deadline", "start"] = "start"
    completed: bool = True
    accepted: tuple[Taken, ...] = ()
    refused: tuple[Refused, ...] = field(default=())

    @classmethod
    def of(
        cls,
        closed: Round,
        strategy: str,
        predecessor: str,
        model: str,
        size_bytes: int,
        states: dict[str, str],
    ) -> Record:
        """The record of a round that is closed."""
        terms = closed.terms
        assert closed.closed_by is not None
        return cls(
            run=terms.run,
            round=terms.round if closed.completed else terms.round - 1,
            attempt=terms.attempt,
            strategy=strategy,
            predecessors=(predecessor,),
            bases=(terms.base,),
            model=model,
            size_bytes=size_bytes,
            states=states,
            asked=terms.asked,
            needed=terms.needed,
            closed_by=closed.closed_by,
            completed=closed.completed,
            accepted=tuple(Taken(update.sender, update.signed) for update in closed.updates()),
            refused=closed.refused,
        )

    def to_dag_json(self) -> bytes:
        node = {
            "kind": KIND,
            "run": self.run,
            "round": self.round,
            "attempt": self.attempt,
            "strategy": self.strategy,
            "predecessors": [_link(cid) for cid in self.predecessors],
            "bases": [_link(cid) for cid in self.bases],
            "model": _link(self.model),
            "size_bytes": self.size_bytes,
            "states": {name: _link(cid) for name, cid in self.states.items()},
            "asked": list(self.asked),
            "needed": self.needed,
            "closed_by": self.closed_by,
            "completed": self.completed,
            "accepted": [
                {
                    "sender": taken.sender,
                    "update": _link(taken.signed.manifest.update),
                    **_signed(taken.signed),
                }
                for taken in self.accepted
            ],
            # What was refused may not exist, so it is named in its manifest and not linked to.
            "refused": [
                {
                    "sender": refused.sender,
                    "reason": refused.reason,
                    "detail": refused.detail,
                    **(_signed(refused.signed) if refused.signed else {}),
                }
                for refused in self.refused
            ],
        }
        return json.dumps(node, separators=(",", ":")).encode()

    @classmethod
    def from_dag_json(cls, node: Any) -> Record:
        if not isinstance(node, dict) or node.get("kind") != KIND:
            raise ShoalError("this node is no record of a round", "the chain is damaged")
        return cls(
            run=node["run"],
            round=node["round"],
            attempt=node["attempt"],
            strategy=node["strategy"],
            predecessors=tuple(link["/"] for link in node["predecessors"]),
            bases=tuple(link["/"] for link in node["bases"]),
            model=node["model"]["/"],
            size_bytes=node["size_bytes"],
            states={name: link["/"] for name, link in node["states"].items()},
            asked=tuple(node["asked"]),
            needed=node["needed"],
            closed_by=node["closed_by"],
            completed=node["completed"],
            accepted=tuple(Taken(row["sender"], _parsed(row)) for row in node["accepted"]),
            refused=tuple(
                Refused(
                    row["sender"],
                    cast(Refusal, row["reason"]),
                    row["detail"],
                    _parsed(row) if "manifest" in row else None,
                )
                for row in node["refused"]
            ),
        )

    def passing(self) -> set[str]:
        """The objects that are not kept for ever: the model and the updates in it."""
        return {self.model, *(taken.signed.manifest.update for taken in self.accepted)}


def _link(cid: str) -> dict[str, str]:
    return {"/": cid}


def _signed(signed: Signed) -> dict[str, str]:
    """Manifest and signature; the manifest as the very text that was signed."""
    return {"manifest": canonical(signed.manifest).decode(), "signature": signed.signature}


def _parsed(row: dict[str, Any]) -> Signed:
    return from_json(Signed, {"manifest": json.loads(row["manifest"]), "signature": row["signature"]})


class Chain:
    """Records on IPFS, and the file that names the newest one."""

    def __init__(self, folder: Path, ipfs: Objects) -> None:
        self._file = folder / HEAD_FILE
        self._ipfs = ipfs

    def head(self) -> str | None:
        """The CID of the newest record; nothing before the first."""
        try:
            return self._file.read_text().strip()
        except FileNotFoundError:
            return None

    def written_at(self) -> float:
        """When the newest record was stored, in seconds since the epoch."""
        return self._file.stat().st_mtime

    async def load(self, cid: str) -> Record:
        return Record.from_dag_json(await self._ipfs.get_node(cid))

    async def append(self, record: Record) -> str:
        """Store a record and make it the newest one; its CID."""
        cid = await self._ipfs.put_node(record.to_dag_json())
        # The node alone: its links lead to the whole history, of which most is let go.
        await self._ipfs.pin(cid, recursive=False)
        replace_file(self._file, f"{cid}\n".encode())
        return cid

    async def passed(self) -> set[str]:
        """What older records made that nothing newer needs any more."""
        gone: set[str] = set()
        needed: set[str] = set()
        cid, age = self.head(), 0
        while cid is not None:
            record = await self.load(cid)
            (needed if age < KEPT_RECORDS else gone).update(record.passing())
            needed.update(record.states.values())
            cid, age = next(iter(record.predecessors), None), age + 1
        return gone - needed


def replace_file(file: Path, data: bytes) -> None:
    """Replace a file whole and durably: after a crash it is the old one or the new one."""
    made = file.with_name(file.name + ".part")
    try:
        with open(made, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(made, file)
        folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as err:
        raise HostError(f"cannot write {file}: {err.strerror}", "free some space on its disk") from err
