"""Language identification of generated text: the most probable of all languages a model knows.

`py3langid` (Barbaresi, after Lui and Baldwin 2012; BSD) brings its model in the package: naive
Bayes on byte n-grams, 140 labels. `fasttext` reads a file such as lid.176.bin, which Gurgurov et
al. 2025 use. Labels are brought to the codes of the configuration by `ALIASES`: Wu and Cantonese
are Chinese (short Mandarin is often called Cantonese), Arabic dialects are Arabic, both written
norms of Norwegian are Norwegian, and Tibetan script is Tibetan. Not told apart: Tibetan and
Dzongkha; weakly: Indonesian and Malay (5 % of FLORES sentences go astray), Danish and Norwegian in
a few words, and any text of under five words. Text without a letter has no language:
`UNDETERMINED`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from langneurons.base.paths import user_path

UNDETERMINED = "und"
ALIASES = {"wuu": "zh", "yue": "zh", "dz": "bo", "nb": "no", "nn": "no", "zxx": UNDETERMINED}
# Three letters, as in the labels of NLLB's lid218e (`__label__deu_Latn`).
_THREE = """
ara ar arb ar ary ar arz ar afr af ben bn bod bo bul bg ces cs cmn zh zho zh cym cy dan da deu de
ell el eng en est et eus eu fas fa pes fa fin fi fra fr hat ht hin hi hun hu ind id isl is ita it
jpn ja kan kn kat ka kaz kk kor ko lit lt lvs lv mal ml mar mr mkd mk mlt mt nld nl nno no nob no
npi ne pan pa pol pl por pt quy qu ron ro rus ru slk sk slv sl spa es swe sv swh sw tam ta tel te
tha th tur tr ukr uk urd ur vie vi
""".split()
ALIASES |= dict(zip(_THREE[::2], _THREE[1::2], strict=True))
LABEL = "__label__"
# What py3langid can give, in the codes of configurations.
PY3LANGID = frozenset(
    """
ace af am an ar as az ba bcl be bg bn bo br bs ca crh cs cy da de el en eo es et eu ext fa fi fo
fr fuv fy ga gcf gcr gd gl gom grc gu gug guw ha hbo he hi hr ht hu hy id ig is it ja jv ka kab
kik kk km kn ko ku ky la lb lg lij ln lo lt ltg lv mg mk ml mn mr ms mt my ne nl no nso oc om or
pa pcm pl ps pt qu ro ru rw sa sdh se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug uk
ur uz uzs vec vi vo wa xh yo zh zu
""".split()
)


def canonical(label: str) -> str:
    """Return the configuration's code of an identifier's label, as in `__label__nn` -> `no`."""
    code = label.removeprefix(LABEL).partition("_")[0].lower()
    return ALIASES.get(code, code)


def identify(texts: Sequence[str], settings: Mapping[str, Any]) -> list[str]:
    """Return the language of each text; line breaks count as spaces.

    `settings`: {"kind": "py3langid"}, or {"kind": "fasttext", "path": ..., "threshold": ...}.
    """
    classify = _fasttext(settings) if settings["kind"] == "fasttext" else _py3langid()
    return [
        canonical(classify(" ".join(text.split())))
        if any(character.isalpha() for character in text)
        else UNDETERMINED
        for text in texts
    ]


def identifier_labels(settings: Mapping[str, Any]) -> set[str]:
    """Return the codes that an identifier can give."""
    if settings["kind"] == "fasttext":
        found, _ = _load_fasttext(settings["path"]).predict("the", k=-1, threshold=0.0)
    else:
        found = _identifier().labels
    return {canonical(label) for label in found} - {UNDETERMINED}


def check_labels(languages: Sequence[str], settings: Mapping[str, Any]) -> None:
    """Refuse languages that the identifier never gives: their success would be 0 by design."""
    known = identifier_labels(settings)
    lacking = [lang for lang in languages if lang not in known]
    if lacking:
        raise ValueError(
            f"identifier {settings['kind']}: {', '.join(lacking)} cannot be identified; known:"
            f" {', '.join(sorted(known))}. Choose another identifier, or leave them out of the"
            " targets."
        )


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)


def _py3langid() -> Callable[[str], str]:
    model = _identifier()
    return lambda text: model.classify(text)[0]


@cache
def _load_fasttext(path: str) -> Any:
    import fasttext

    path = str(user_path(path))
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"identifier.path: {path} does not exist. It is a fastText model, such as lid.176.bin"
            " (https://fasttext.cc/docs/en/language-identification.html)."
        )
    return fasttext.load_model(path)


def _fasttext(settings: Mapping[str, Any]) -> Callable[[str], str]:
    model, least = _load_fasttext(settings["path"]), settings.get("threshold", 0.0)

    def classify(text: str) -> str:
        labels, shares = model.predict(text)
        return labels[0] if labels and shares[0] >= least else UNDETERMINED

    return classify
