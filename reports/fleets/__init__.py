"""Fleets and planned hosts for people: in words, on a terminal, as a page, and as data."""
