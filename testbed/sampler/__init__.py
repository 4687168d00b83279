"""Samples what instances and the host use, ten times a second, by a small program that reads the kernel's files."""
