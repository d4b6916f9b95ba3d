"""Prices: what a usage cost, exactly, and what a call can cost at most."""

from __future__ import annotations

from app.skills.pricing.book import DENY, FREE, Cost, PriceBook, UnknownPrice, get_price_book
from app.skills.pricing.rates import ModelPrice, PriceTier, Rates

__all__ = [
    "DENY",
    "FREE",
    "Cost",
    "ModelPrice",
    "PriceBook",
    "PriceTier",
    "Rates",
    "UnknownPrice",
    "get_price_book",
]
