"""Shoal from the outside: the box, the network in it, and the jobs that a person starts."""
