"""An OCI configuration (runtime-spec 1.3, config.md and config-linux.md): its types, and the way from JSON to them.

Field names are the specification's in snake case; where that does not give the JSON name back, the field says it. None
means that the configuration does not have the field.
"""
