"""TFF's aggregators and finalizer, compiled to graphs and run here."""

from __future__ import annotations

import numpy as np
import pytest

from node.contract import UsageError
from node.learning.encoding import Weights
from node.learning.tff import Combiner
from tests.learning.conftest import equal

# TensorFlow and Keras use what others have deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

Update = tuple[Weights, float]
NOISY = {"noise_multiplier": 0.3, "clients_per_round": 4.0}


def random_weights(seed: int, size: float = 0.01) -> Weights:
    generator = np.random.default_rng(seed)
    shapes = {"00.a": (4, 3), "01.b": (3,), "02.c": ()}
    return {name: (size * generator.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


MODEL = random_weights(0, 1.0)


def updates(count: int = 4) -> list[Update]:
    return [(random_weights(seed), float(10 * seed)) for seed in range(1, count + 1)]


def close(one: Weights, other: Weights) -> bool:
    return all(np.allclose(one[name], other[name], rtol=0, atol=1e-6) for name in one)


@pytest.fixture(scope="module")
def mean() -> Combiner:
    return Combiner("mean", {}, MODEL)


@pytest.fixture(scope="module")
def robust() -> Combiner:
    return Combiner("robust", {}, MODEL)


@pytest.fixture(scope="module")
def dp() -> Combiner:
    return Combiner("dp", NOISY, MODEL)


@pytest.mark.parametrize("rate", [1.0, 0.5])
def test_mean_is_the_weighted_mean(rate: float) -> None:
    model, _ = (combiner := Combiner("mean", {}, MODEL, rate)).combine(
        combiner.initial_state(), MODEL, updates()
    )
    assert list(model) == list(MODEL)
    assert all(array.dtype == np.float32 for array in model.values())
    total = sum(weight for _, weight in updates())
    assert close(
        model,
        {
            name: MODEL[name] - rate * sum(weight * update[name] for update, weight in updates()) / total
            for name in MODEL
        },
    )


def test_mean_and_robust_give_equal_bits_for_equal_input(mean: Combiner, robust: Combiner) -> None:
    for combiner in (mean, robust):
        state = combiner.initial_state()
        first, second = (combiner.combine(state, MODEL, updates()) for _ in range(2))
        assert equal(first[0], second[0])
        assert first[1] == second[1]


def test_any_number_of_updates_may_come(mean: Combiner) -> None:
    state = mean.initial_state()
    for count in (1, 2, 7):
        assert not equal(mean.combine(state, MODEL, updates(count))[0], MODEL)


@pytest.mark.parametrize("nothing", [[], [(random_weights(1), 0.0)]])
def test_a_mean_of_nothing_leaves_the_model(mean: Combiner, nothing: list[Update]) -> None:
    state = mean.initial_state()
    model, following = mean.combine(state, MODEL, nothing)
    assert equal(model, MODEL)
    assert following == state


def test_robust_zeroes_what_is_far_out(robust: Combiner) -> None:
    outlier = ({name: np.full_like(array, 1e6) for name, array in MODEL.items()}, 10.0)
    kept, _ = robust.combine(robust.initial_state(), MODEL, [*updates(), outlier])
    assert max(float(np.abs(kept[name] - MODEL[name]).max()) for name in MODEL) < 0.1


def test_robust_clips_what_is_long(robust: Combiner) -> None:
    long = ({name: np.full_like(array, 5.0) for name, array in MODEL.items()}, 1.0)
    clipped, _ = robust.combine(robust.initial_state(), MODEL, [long])
    moved = np.sqrt(sum(float(((clipped[name] - MODEL[name]) ** 2).sum()) for name in MODEL))
    assert moved == pytest.approx(1.0, rel=1e-3)  # TFF's first bound on the norm


def test_robust_leaves_small_updates_alone(robust: Combiner, mean: Combiner) -> None:
    assert close(
        robust.combine(robust.initial_state(), MODEL, updates())[0],
        mean.combine(mean.initial_state(), MODEL, updates())[0],
    )


def test_the_state_goes_on_across_a_restart(robust: Combiner) -> None:
    state = robust.initial_state()
    _, second = robust.combine(state, MODEL, updates())
    assert second != state
    model, third = robust.combine(second, MODEL, updates())
    again = Combiner("robust", {}, MODEL)
    assert again.initial_state() == state
    other, fourth = again.combine(second, MODEL, updates())
    assert equal(other, model)
    assert fourth == third


def test_dp_adds_noise_and_keeps_its_state(dp: Combiner) -> None:
    state = dp.initial_state()
    (one, following), (other, _) = (dp.combine(state, MODEL, updates()) for _ in range(2))
    assert not equal(one, other)
    assert following != state
    assert not equal(dp.combine(following, one, updates())[0], one)


@pytest.mark.parametrize(
    ("strategy", "parameters", "said"),
    [
        ("mean", {"zeroing": 1.0}, "no parameter 'zeroing'"),
        ("dp", {"noise_multiplier": 1.0}, "clients_per_round"),
        ("dp", {"noise_multiplier": 1.0, "clients_per_round": 4.0}, "below a tenth"),
    ],
)
def test_wrong_parameters_are_refused(strategy: str, parameters: dict[str, float], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Combiner(strategy, parameters, MODEL)  # type: ignore[arg-type]


def test_nothing_can_start_tffs_helper_by_accident() -> None:
    from node.learning.runtime import tff

    with pytest.raises(RuntimeError, match="context"):
        tff.tensorflow.computation(lambda: np.float32(1))()
