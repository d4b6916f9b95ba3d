"""What acts: adapters that call language models, their prices, and the guards around a call."""
