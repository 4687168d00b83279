"""A client for registries of images (OCI distribution-spec 1.1), and a small server of the same interface."""
