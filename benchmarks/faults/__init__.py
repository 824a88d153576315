"""Faults, done to the real thing while it runs, and what became of the lake."""
