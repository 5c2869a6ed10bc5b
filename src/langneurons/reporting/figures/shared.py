"""The picture of a shared folder: a number of each layer and language."""

import math
import os

import numpy as np
import pandas as pd
from matplotlib.colors import Normalize

from langneurons.reporting.figures.canvas import (
    NAMES,
    PAGE,
    add_colour_bar,
    canvas,
    colour_map,
    draw_cells,
)


def draw_profiles(values: pd.DataFrame, label: str, title: str, stem: str | os.PathLike) -> None:
    """Draw a number, named by `label`, of each language (rows) and layer (columns)."""
    numbers = values.to_numpy(np.float64)
    low, high = float(numbers.min()), float(numbers.max())
    norm = Normalize(low, high if high > low else low + 1.0)
    cmap, layers = colour_map("cividis"), values.shape[1]
    across, down = min(PAGE - NAMES - 0.7, layers * 0.2), max(0.9, len(values) * 0.21)
    with canvas(stem, NAMES + 0.7 + max(2.0, across), down + 0.8, title) as figure:
        axis = figure.subplots()
        draw_cells(axis, values, cmap, norm, None)
        ticks = list(range(0, layers, max(1, math.ceil(layers / 16))))
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.tick_params(axis="x", labelrotation=0)
        axis.set_xlabel("layer (0 is nearest to the input)")
        add_colour_bar(figure, axis, cmap, norm, label, beside=True)
