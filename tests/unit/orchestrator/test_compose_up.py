"""What of Compose's own words is told."""

from __future__ import annotations

from orchestrator.containers.compose_up import last_words


def test_how_far_each_container_came_is_no_reason() -> None:
    said = (
        " Network a_ctl  Created\n Container a-w01-1  Starting\nError response from daemon: no such image\n"
    )
    assert last_words(said) == "Error response from daemon: no such image"


def test_where_nothing_else_is_said_that_is_what_is_told() -> None:
    assert last_words(" Container a-w01-1  Starting\n\n") == "Container a-w01-1  Starting"
