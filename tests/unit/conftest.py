"""Properties are tried on fewer examples than by default: these tests are run again and again, and it adds up."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("quick", max_examples=30)
settings.load_profile("quick")
