"""A data centre, simulated: servers drawn or read from a trace, packed onto hosts by what a run has measured.

Everything is a function of its inputs and seeds, and computes; nothing here touches a host. numpy is imported at the
top: who imports this room does so where it is needed.
"""
