"""In which order published masks list their languages: the files themselves do not say.

The layout is a list over languages of lists over layers (see `langneurons.selection.table`).
"""

_CODES = {
    # Tang et al. 2024: LLaMA-2 7B and 13B; their other models (70B too) were run without Japanese.
    "tang2024": "en zh fr es vi id ja",
    "tang2024_six": "en zh fr es vi id",
    "gurgurov2025": "bo mt it es de ja ar zh af nl fr pt ru ko hi tr pl sv da no en",
    # arXiv 2601.08331 and 2510.13580, by the same first author.
    "clas_bench": (
        "en ar bo da de es fr hi it ja ko mt nl no pl pt ru sv tr zh sk el kk sw ka uk fa th id vi"
        " cs ro"
    ),
    "subnetworks2025": "mt af is cy mk lv lt sl sk et ka ne",
    "rahmanisa2025": "en nl id ms vi ja zh fr pt ru et ht it qu sw ta th tr",
}
ORDERS: dict[str, tuple[str, ...]] = {name: tuple(text.split()) for name, text in _CODES.items()}
