"""Peer IDs in their usual spelling: a multihash in base58."""

from __future__ import annotations

from typing import Final

DIGITS: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
LONGEST: Final = 64  # characters; an Ed25519 peer ID has 52, one of a hashed key 46


def is_peer_id(text: str) -> bool:
    """Whether this is an Ed25519 key inlined, or the SHA2-256 of another key, and spelt canonically."""
    if not 0 < len(text) <= LONGEST or any(char not in DIGITS for char in text):
        return False
    number = 0
    for char in text:
        number = number * 58 + DIGITS.index(char)
    zeros = len(text) - len(text.lstrip("1"))
    binary = b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
    ed25519 = len(binary) == 38 and binary.startswith(bytes.fromhex("002408011220"))
    hashed = len(binary) == 34 and binary.startswith(b"\x12\x20")
    return ed25519 or hashed
