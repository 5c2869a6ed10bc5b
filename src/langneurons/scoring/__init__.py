"""Log-likelihoods, losses and answers, one by one and in batches."""
