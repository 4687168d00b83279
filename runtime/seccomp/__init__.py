"""System call filters: from an OCI configuration to the kernel's classic BPF, through libseccomp."""
