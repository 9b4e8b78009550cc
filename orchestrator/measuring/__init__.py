"""Whether the links do what the plan asks of them, measured before a run counts."""
