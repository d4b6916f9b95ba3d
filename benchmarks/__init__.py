"""Benchmarks: scripts to run, one subject each; see README.md."""
