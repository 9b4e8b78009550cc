"""Images made up with CIFAR's shapes: the same bytes on every host, since all is whole numbers.

A class is a family of three textures, sums of plane waves; every image shifts, tints and weakens one of them,
lays a texture of another class over it and adds noise. Shifts hide the class from linear models, and not from
convolutions.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from node.data.dataset import Dataset, Split

CLASSES = 10
SIDE = 32
TRAIN_EXAMPLES = 10_000
TEST_EXAMPLES = 2_000
_NOISE = 20 << 8  # in 1/256 grey levels, twice
_VARIANTS = 3  # textures of a class
_WAVES = 3  # of a texture
_TURN = 256  # steps of a full turn
_SEED = 20_240_917  # of the world; not the run's, so that runs with different seeds can be compared

_SINE = np.array([round(127 * math.sin(2 * math.pi * k / _TURN)) for k in range(_TURN)], np.int32)
Numbers = npt.NDArray[np.int32]


def synthetic_cifar() -> Split:
    """10 classes of 32x32x3."""
    generator = np.random.Generator(np.random.PCG64(_SEED))
    shape = (CLASSES, _VARIANTS, _WAVES)
    # A wave's direction and pace, in 1/256 turns for each pixel: from 1.5 to 7 periods over the image.
    paces = (generator.integers(14, 65, (*shape, 2)) * generator.choice([-1, 1], (*shape, 2))).astype(
        np.int32
    )
    colours = generator.integers(-64, 65, (*shape, 3)).astype(np.int32)

    def images(count: int) -> Dataset:
        labels = np.arange(count, dtype=np.int64) % CLASSES
        others = (labels + generator.integers(1, CLASSES, count)) % CLASSES
        pixels = np.full((count, SIDE, SIDE, 3), 128 << 8, np.int32)
        for which, low, high in ((labels, 40, 170), (others, 20, 90)):
            strength = generator.integers(low, high, count).astype(np.int32)
            variant = generator.integers(0, _VARIANTS, count)
            for wave in range(_WAVES):
                shade = _plane(paces[which, variant, wave], generator.integers(0, _TURN, count))
                tint = colours[which, variant, wave] + generator.integers(-16, 17, (count, 3)).astype(
                    np.int32
                )
                # 127 * 64 * 160 is about 1.3 million: shift down to some thousands of 1/256 grey levels.
                pixels += shade[..., None] * (tint * strength[:, None] >> 6)[:, None, None, :]
        for _ in range(2):
            pixels += generator.integers(-_NOISE, _NOISE + 1, pixels.shape, dtype=np.int32)
        grey = np.clip(pixels >> 8, 0, 255).astype(np.uint8)
        return Dataset(np.divide(grey, 255, dtype=np.float32), labels)

    return Split(images(TRAIN_EXAMPLES), images(TEST_EXAMPLES), CLASSES, (SIDE, SIDE, 3), synthetic=True)


def _plane(pace: Numbers, phase: npt.NDArray[np.int64]) -> Numbers:
    """A plane wave over the image for each row of `pace`."""
    steps = np.arange(SIDE, dtype=np.int32)
    angle = pace[:, 0, None, None] * steps[:, None] + pace[:, 1, None, None] * steps + phase[:, None, None]
    shade: Numbers = _SINE[angle & (_TURN - 1)]
    return shade
