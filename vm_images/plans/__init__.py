"""The plans of guests: what PID 1 of a virtual machine does between the kernel and the workload."""
