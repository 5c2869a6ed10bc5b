"""What is measured with a model: tasks, perplexity, steering shift, forcing, logit lens."""
