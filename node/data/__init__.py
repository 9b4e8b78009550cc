"""Data sets: where they come from and how they are cut into shards. No TensorFlow."""
