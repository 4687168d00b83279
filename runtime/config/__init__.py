"""OCI configurations (runtime-spec 1.3, config.md and config-linux.md): their types, and the conversion from JSON.

Fields have the specification's names in snake case. Where the JSON name cannot be derived from that, the field declares
it. None means that the configuration does not have the field.
"""
