"""One SQLite file for all three stores: its thread, its schema, and how its errors are told."""
