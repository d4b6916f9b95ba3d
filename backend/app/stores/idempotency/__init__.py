"""Idempotency: the contract, and its backends in memory, in SQLite and in Redis."""
