"""What decides and sequences: limits, the engine that runs steps and resumes them, and flows as files."""
