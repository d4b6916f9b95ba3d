"""What the benchmarks share: figures, child processes that take turns, environments of peers."""
