"""Statistics, neurons and directions as folders that others can read (docs/format.md)."""
