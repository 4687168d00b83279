"""Writable roots of containers that outlive them: snapshots, clones and what goes with them, by chains of layers."""
