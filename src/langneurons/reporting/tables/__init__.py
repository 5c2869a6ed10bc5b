"""Tables: one module per family."""
