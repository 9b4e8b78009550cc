"""What trainers and aggregator say to each other over the tunnel, as JSON.

POST /v1/work    {"ready": bool}  → Work; held open until there is something to say, at most LONG_POLL_S; with
                 "has": CID of a model also until there is another one, before there is a round for it
POST /v1/update  Signed           → Answer; refused with a reason, or taken and durable
POST /v1/hello   {}               → {} at once: asked when an answer is long in coming

Blanks come before an answer that is held back, so that a waiting asker knows a silent line from a long wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

LONG_POLL_S = 20.0
MAX_MANIFEST_BYTES = 1024
ENCODING = "safetensors/f32"
NOT_HANDED_IN = "not handed in"  # a trainer's own reason for an update that nobody got

Refusal = Literal[
    "stranger",  # the asker is not a member
    "unsigned",  # no signature, or none that can be read
    "forged",  # the signature is not the asker's over these bytes
    "replayed",  # this node's update for this round is known already
    "wrong_round",  # of another run, or a round that has not been opened yet
    "wrong_base",  # computed from another model than the round's
    "wrong_encoding",
    "too_large",  # named, or came, with more bytes than the encoding allows
    "unfetchable",  # nobody gave it in time
    "unverified",  # what came is not what its CID says
    "misshapen",  # names or shapes are not the model's
    "wrong_dtype",
    "not_finite",
    "malformed",  # the message itself cannot be read
    "late",  # of a round that is over
]


@dataclass(frozen=True)
class Work:
    """`train`: a round is open and the asker is in it. `wait`: ask again, once you
    have the model that is named. `done`: there will be no more."""

    kind: Literal["train", "wait", "done"]
    round: int = 0
    base: str = ""  # CID of the model
    size_bytes: int = 0
    encoding: str = ENCODING
    local_epochs: int = 0
    batch_size: int = 0
    learning_rate: float = 0.0
    deadline_s: float = 0.0  # what is left of it


@dataclass(frozen=True)
class Manifest:
    """One update; what is signed is its canonical JSON."""

    run: str
    round: int
    sender: str  # peer ID
    base: str
    update: str  # CID
    size_bytes: int
    encoding: str
    examples: int
    fetch_s: float
    train_s: float
    loss: float


@dataclass(frozen=True)
class Signed:
    manifest: Manifest
    signature: str  # multibase u…, by the node's libp2p identity


@dataclass(frozen=True)
class Answer:
    accepted: bool
    reason: Refusal | None = None
    detail: str = ""
