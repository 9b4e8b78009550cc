"""Grafana's dashboards, one for each question; `python -m dashboards` writes their JSON beside this file."""
