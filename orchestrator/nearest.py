"""The known word that a person most likely meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def hint(word: str, known: Iterable[str]) -> str:
    """What to try instead of an unknown word."""
    words = sorted(known)
    if not words:
        return "there is none yet"
    by_small = {one.lower(): one for one in reversed(words)}
    close = difflib.get_close_matches(word.lower(), by_small, n=1, cutoff=0.55)
    meant = f"perhaps you meant {by_small[close[0]]}; " if close else ""
    return f"{meant}known: {', '.join(words)}"
