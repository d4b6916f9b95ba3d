"""Checkpoints: the contract, the hash chain and the codec, and the backends in memory, in SQLite and in PostgreSQL."""
