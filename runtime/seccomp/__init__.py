"""Compile system call filters of an OCI configuration to the kernel's classic BPF, with libseccomp."""
