"""Which neurons belong to a language: the methods, and tables of what they select."""
