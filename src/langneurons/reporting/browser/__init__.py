"""The pages of single neurons: a folder that opens from disk."""
