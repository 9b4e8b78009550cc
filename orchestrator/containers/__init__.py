"""Nodes as containers: driver `compose`, its engine and its images."""
