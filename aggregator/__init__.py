"""The round state machine, strategies and records of a training; empty so far."""
