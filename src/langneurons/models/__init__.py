"""Models: where they come from, what their families look like, how text becomes their tokens."""
