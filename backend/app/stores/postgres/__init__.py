"""PostgreSQL as the stores use it: connections, schema, statements as files, and how its errors are told."""
