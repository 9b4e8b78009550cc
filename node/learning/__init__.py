"""Training and combining models: TensorFlow stands in one module only."""
