"""Identification on own sentences in every language of the papers, and a fastText file by hand."""

import json
import struct
from importlib.resources import files

import numpy as np
import pytest

from langneurons.evaluation import identification
from langneurons.evaluation.identification import (
    UNDETERMINED,
    canonical,
    check_labels,
    identifier_labels,
    identify,
)

MINI = files("langneurons") / "data" / "mini"
MINI_LANGUAGES = ("en", "fr", "es", "vi", "id", "ja", "zh", "hi", "ur")
PY3LANGID = {"kind": "py3langid"}
GURGUROV = "bo mt it es de ja ar zh af nl fr pt ru ko hi tr pl sv da no en".split()
# Two sentences in each language that the mini corpus lacks.
OWN = {
    "bo": ["ངའི་ཁྱིམ་ནི་གངས་རིའི་འགྲམ་དུ་ཡོད།", "དེ་རིང་གནམ་གཤིས་ཧ་ཅང་གྲང་མོ་འདུག"],
    "mt": [
        "Il-mużew huwa magħluq nhar ta' Tnejn minħabba xogħlijiet ta' restawr.",
        "Ilbieraħ mxejna għal sigħat twal fuq ix-xatt.",
    ],
    "it": [
        "Il treno per Bologna parte fra dieci minuti dal binario quattro.",
        "Ieri abbiamo camminato per ore lungo la spiaggia.",
    ],
    "de": [
        "Der Zug nach Leipzig fährt in zehn Minuten von Gleis vier ab.",
        "Nach dem starken Regen standen viele Keller unter Wasser.",
    ],
    "ar": [
        "يغلق المتحف أبوابه يوم الاثنين بسبب أعمال الصيانة.",
        "مشينا أمس ساعات طويلة على الشاطئ.",
    ],
    "af": [
        "Die museum is Maandae gesluit omdat hulle die dak herstel.",
        "Ons het gister ure lank langs die strand gestap.",
    ],
    "nl": [
        "De trein naar Utrecht vertrekt over tien minuten van spoor vier.",
        "Door de zware regen stonden veel kelders onder water.",
    ],
    "pt": [
        "O museu fecha às segundas-feiras por causa das obras.",
        "Ontem caminhámos durante horas ao longo da praia.",
    ],
    "ru": [
        "Поезд до Казани отправляется через десять минут с четвёртого пути.",
        "Вчера мы несколько часов гуляли по берегу.",
    ],
    "ko": [
        "부산행 기차는 십 분 뒤에 사 번 승강장에서 출발합니다.",
        "어제 우리는 몇 시간 동안 바닷가를 걸었다.",
    ],
    "tr": [
        "Ankara treni on dakika sonra dördüncü perondan kalkıyor.",
        "Dün sahil boyunca saatlerce yürüdük.",
    ],
    "pl": [
        "Pociąg do Gdańska odjeżdża za dziesięć minut z peronu czwartego.",
        "Po ulewnym deszczu wiele piwnic zostało zalanych.",
    ],
    "sv": [
        "Tåget till Malmö går om tio minuter från spår fyra.",
        "Efter det kraftiga regnet stod många källare under vatten.",
    ],
    "da": [
        "Toget til Aarhus kører om ti minutter fra spor fire.",
        "Kan du fortælle mig, hvor det nærmeste apotek ligger?",
    ],
    "no": [
        "Toget til Bergen går om ti minutter fra spor fire, men jeg rekker det ikke.",
        "Etter det kraftige regnet sto mange kjellere under vann.",
    ],
}


def mini(lang):
    rows = (MINI / "corpus" / f"{lang}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(row)["text"] for row in rows]


@pytest.mark.parametrize("lang", sorted(OWN))
def test_own_sentences(lang):
    assert identify(OWN[lang], PY3LANGID) == [lang] * len(OWN[lang])


@pytest.mark.parametrize("lang", MINI_LANGUAGES)
def test_accuracy_on_the_mini_corpus(lang):
    found = identify(mini(lang), PY3LANGID)
    # Malay is what Indonesian is taken for.
    assert set(found) <= ({lang, "ms"} if lang == "id" else {lang})
    assert found.count(lang) / len(found) >= (0.9 if lang == "id" else 1.0)


def test_every_language_of_the_papers_can_be_identified():
    check_labels([*GURGUROV, *MINI_LANGUAGES], PY3LANGID)
    with pytest.raises(ValueError, match="ka2.*cannot be identified; known: .*zh"):
        check_labels(["en", "ka2"], PY3LANGID)


def test_what_is_known_before_a_run_is_what_the_identifier_gives():
    assert identification.PY3LANGID == identifier_labels(PY3LANGID)


@pytest.mark.parametrize("text", ["", " \n ", "12 + 34 = 46", "?!...", "\u200b"])
def test_text_without_letters_has_no_language(text):
    assert identify([text], PY3LANGID) == [UNDETERMINED]


def test_labels_become_codes():
    labels = ("__label__nn", "nb", "wuu", "__label__zho_Hans", "arz", "dz", "en")
    assert [canonical(label) for label in labels] == ["no", "no", "zh", "zh", "ar", "bo", "en"]


def test_line_breaks_and_order_do_not_matter():
    texts = [OWN["de"][0].replace(" ", "\n"), OWN["pl"][0]]
    assert identify(texts, PY3LANGID) == ["de", "pl"]
    assert identify(texts[::-1], PY3LANGID) == ["pl", "de"]


def write_fasttext(path, words, labels, vectors, outputs):
    """Write a supervised fastText model (version 12, softmax, no n-grams, no buckets).

    vectors: (words, dim) input vectors; outputs: (labels, dim).
    """
    dim = vectors.shape[1]
    arguments = (dim, 5, 1, 1, 5, 1, 3, 3, 0, 0, 0, 100)  # loss 3: softmax; model 3: supervised
    entries = [(word, 0) for word in words] + [(label, 1) for label in labels]
    with open(path, "wb") as file:
        file.write(struct.pack("<ii", 793712314, 12))
        file.write(struct.pack("<12id", *arguments, 1e-4))
        file.write(struct.pack("<3i2q", len(entries), len(words), len(labels), 99, -1))
        for name, kind in entries:
            file.write(name.encode() + b"\0" + struct.pack("<qb", 5, kind))
        for matrix in (vectors, outputs):
            file.write(struct.pack("<?2q", False, *matrix.shape))
            file.write(matrix.astype("<f4").tobytes())


def test_a_fasttext_file_is_read_and_its_labels_become_codes(tmp_path):
    path = tmp_path / "lid.bin"
    words = ["</s>", "hus", "og", "house", "and"]
    vectors = np.array([[0, 0], [1, 0], [2, 0], [0, 1], [0, 2]], float)
    write_fasttext(path, words, ["__label__nn", "__label__en"], vectors, 5 * np.eye(2))
    settings = {"kind": "fasttext", "path": str(path)}
    assert identify(["hus og", "house\nand hus", "og and and"], settings) == ["no", "en", "en"]
    assert identify(["", "7"], settings) == [UNDETERMINED] * 2
    assert identifier_labels(settings) == {"no", "en"}


def test_a_missing_fasttext_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"identifier\.path: .*none\.bin.*lid\.176\.bin"):
        identify(["text"], {"kind": "fasttext", "path": str(tmp_path / "none.bin")})
