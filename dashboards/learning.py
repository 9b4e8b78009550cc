"""Is it learning?"""

from __future__ import annotations

from typing import Final

from dashboards.metric import metric
from dashboards.page import Part, page
from dashboards.panel import BLUE, COUNT, GREEN, RATIO, RED, SECONDS, YELLOW, Query, figure, lines
from dashboards.queries import by_node, mean_by_node, mean_of_a_minute

OUTCOMES: Final = f"sum by (outcome) ({metric('shoal_updates_total')})"
WORKERS: Final = f"""sum({metric("shoal_part_up", 'part="trainer"')})"""


def dashboard() -> str:
    return page(
        "learning",
        "Is it learning?",
        "Whether the model gets better round by round, and who takes part in that.",
        (_now(), _model(), _rounds()),
    )


def _now() -> Part:
    return Part(
        "Now",
        (
            figure(
                "Accuracy",
                "Share of the held-out examples that the newest model gets right.",
                Query(f"max({metric('shoal_accuracy')})", "accuracy"),
                unit=RATIO,
                steps=((None, RED), (0.5, YELLOW), (0.85, GREEN)),
                decimals=1,
            ),
            figure(
                "Loss",
                "Loss of the newest model on the held-out examples; lower is better.",
                Query(f"max({metric('shoal_loss')})", "loss"),
                unit=COUNT,
                decimals=3,
            ),
            figure(
                "Open round",
                "The round that is open, or was the last.",
                Query(f"max({metric('shoal_round')})", "round"),
                unit=COUNT,
            ),
            figure(
                "Rounds completed",
                "Rounds that made a new model. Fewer than were opened means that a quorum was missed.",
                Query(f"sum({metric('shoal_rounds_completed_total')})", "rounds"),
                unit=COUNT,
            ),
            figure(
                "Updates in the model",
                "How many workers' updates the newest model is made of.",
                Query(f"max({metric('shoal_participants')})", "updates"),
                unit=COUNT,
                steps=((None, RED), (1, BLUE)),
            ),
            figure(
                "Workers that run",
                "Trainers whose process is alive. A worker that is cut off is alive, too.",
                Query(WORKERS, "workers"),
                unit=COUNT,
            ),
        ),
    )


def _model() -> Part:
    return Part(
        "The model",
        (
            lines(
                "Accuracy",
                "It should rise and then level off. A step down while workers are missing means that their "
                "data were not like the others'.",
                Query(metric("shoal_accuracy"), "newest model"),
                unit=RATIO,
                is_stepped=True,
                most=1,
            ),
            lines(
                "Loss",
                "The newest model on the held-out examples. When it rises while the workers' own losses "
                "fall, they learn by heart, or their data differ.",
                Query(metric("shoal_loss"), "newest model"),
                unit=COUNT,
                is_stepped=True,
            ),
            lines(
                "Training loss by worker",
                "Of each worker's last local training, on its own data. A line that stands still belongs to "
                "a worker that takes no part.",
                by_node("shoal_train_loss"),
                unit=COUNT,
                is_stepped=True,
            ),
            lines(
                "Updates by outcome",
                "All so far: accepted, or the reason of refusal. `late` came after its round was over.",
                Query(OUTCOMES, "{{outcome}}"),
                unit=COUNT,
                is_stepped=True,
            ),
        ),
    )


def _rounds() -> Part:
    return Part(
        "The rounds",
        (
            lines(
                "Rounds",
                "A long step is a long round. The lines stay apart by one while a round is open; more means "
                "that rounds were closed without a new model.",
                Query(metric("shoal_round"), "open"),
                Query(metric("shoal_rounds_completed_total"), "completed"),
                unit=COUNT,
                is_stepped=True,
            ),
            lines(
                "Who takes part",
                "Updates in the newest model beside the workers that run. The gap is who was late, cut off "
                "or refused.",
                Query(metric("shoal_participants"), "updates in the model"),
                Query(WORKERS, "workers that run", is_dashed=True),
                unit=COUNT,
                is_stepped=True,
            ),
            lines(
                "A round",
                "Mean of the rounds that ended within the last minute, from opening to record. At the "
                "scenario's deadline somebody is waited for in vain.",
                Query(mean_of_a_minute("shoal_round_seconds"), "round"),
                Query(mean_of_a_minute("shoal_aggregate_seconds"), "of it combining the updates"),
                unit=SECONDS,
            ),
            lines(
                "Training by worker",
                "Mean of the local trainings that ended within the last minute. The slowest worker sets the "
                "pace.",
                mean_by_node("shoal_train_seconds"),
                unit=SECONDS,
            ),
        ),
    )
