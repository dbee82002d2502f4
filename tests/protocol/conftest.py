"""Hypothesis without chance and without clocks: a test that passes once passes always."""

from hypothesis import settings

settings.register_profile("holdfast", derandomize=True, deadline=None, database=None)
settings.load_profile("holdfast")
