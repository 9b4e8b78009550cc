"""Shoal from the outside: what makes plans, brings fleets to life and judges runs."""

from pathlib import Path

# The checkout. Set-up imports this with any Python from 3.8 on.
TOP = Path(__file__).resolve().parent.parent
