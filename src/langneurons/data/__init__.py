"""Rows from files and the hub: corpora, facts, questions, and the mini data."""
