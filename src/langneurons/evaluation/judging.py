"""Generated texts with their language and what is degenerate about them."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from langneurons.evaluation.degeneracy import is_degenerate, is_empty, measures
from langneurons.evaluation.identification import identify


def judged(frame: pd.DataFrame, identifier: Mapping[str, Any], threshold: float) -> pd.DataFrame:
    """Return records with the columns identified, empty, degenerate and every measure.

    `frame` has a column text; `threshold` is the share of repetition that counts as degenerate.
    """
    texts = list(frame["text"])
    rows = [measures(text) for text in texts]
    return frame.assign(
        identified=identify(texts, identifier),
        empty=[is_empty(text) for text in texts],
        degenerate=[
            is_degenerate(text, row, threshold) for text, row in zip(texts, rows, strict=True)
        ],
        **{name: [row[name] for row in rows] for name in (rows[0] if rows else ())},
    )
