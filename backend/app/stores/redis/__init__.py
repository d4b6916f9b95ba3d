"""A Redis server as the stores use it: connections, scripts, key names, and its failures as Nova's errors."""
