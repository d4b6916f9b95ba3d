"""Where old runs lie: objects that are written once, and a format that any zstd reader reads."""
