"""The project's own models: a small convolutional network, sized by the images it is for."""

from __future__ import annotations

from typing import Any


def cnn(keras: Any, input_shape: tuple[int, ...], classes: int) -> Any:
    """8x8x1: 13,706 parameters; 28x28x1: 56,714; 32x32x3: 122,570. `keras` is tf.keras."""
    layers = keras.layers
    side = min(input_shape[:2])
    if side >= 32:
        body = [
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
        ]
    else:
        padding = "valid" if side >= 16 else "same"  # tiny images cannot spare their rims
        body = [
            layers.Conv2D(16, 3, activation="relu", padding=padding),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, activation="relu", padding=padding),
            layers.MaxPooling2D(),
        ]
    centred = layers.Rescaling(2.0, offset=-1.0)  # from [0, 1]: learning sets in much sooner
    top = [layers.Flatten(), layers.Dense(64, activation="relu"), layers.Dense(classes)]
    return keras.Sequential([keras.Input(input_shape), centred, *body, *top])
