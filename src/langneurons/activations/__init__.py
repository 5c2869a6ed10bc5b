"""Statistics of every neuron's activations, in one pass."""
