"""This package is the container runtime, as a library and as an OCI command line."""

# The version of the whole project: pyproject.toml, manifests and `testbed-runtime --version` take it from here.
__version__ = "0.3.0"
