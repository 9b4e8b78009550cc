"""Nodes as namespaces of this host: driver `netns`."""
