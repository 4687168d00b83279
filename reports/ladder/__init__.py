"""The ladder for people: on a terminal, and as a page of its own."""
