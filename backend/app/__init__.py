"""Nova: budgets that hold, runs that resume, LLM calls that are charged once."""
