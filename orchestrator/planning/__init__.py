"""From a scenario's text to its plan; pure but for the reading of files."""
