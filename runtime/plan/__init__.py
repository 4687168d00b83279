"""Plans: what a container, or the userspace half of a booting guest, is made of."""
