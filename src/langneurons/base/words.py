"""Words that records reserve: no name or label may be one of them."""

UNTOUCHED = "none"  # the model whose neurons are not overwritten
UNTRAINED = "base"  # the model without adapter
