"""The door to all that needs TensorFlow: importing this loads it, and nothing else in node.learning does."""

from __future__ import annotations

from node.learning.combiner import Combiner
from node.learning.learner import Learner, Trained
from node.learning.scores import Scores

__all__ = ["Combiner", "Learner", "Scores", "Trained"]
