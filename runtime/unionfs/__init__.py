"""Union mounts: one root file system out of an image's layers."""
