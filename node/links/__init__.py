"""The links of a node: the table, what the kernel is told of it, and what holds packets back."""
