"""``python -m examples.demo``: what ``make demo`` runs."""
