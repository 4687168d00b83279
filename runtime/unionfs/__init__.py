"""Union mounts, which show an image's layers as one root file system, or any directories as one."""
