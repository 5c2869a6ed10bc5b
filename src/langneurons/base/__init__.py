"""What every room stands on: errors, files, digests, settings; it knows no neuron and no torch."""
