"""What is written into neurons, and the hooks that write it."""
