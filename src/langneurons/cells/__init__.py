"""The jobs that run a model, from file names to records; one module each, so that reruns are."""
