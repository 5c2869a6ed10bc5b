"""Training of chosen neurons."""
