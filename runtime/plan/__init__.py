"""Plans list the steps that make a container, or the userspace half of a booting guest."""
