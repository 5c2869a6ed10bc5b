"""Languages and writing systems: one table of what a language code says about its text.

A code may be ISO 639-1 (`zh`), ISO 639-2 or 639-3 (`zho`, `chi`, `cmn`), a BCP 47 tag
(`zh-Hans-CN`, `es-MX`), a FLORES code (`zho_Hant`) or a locale (`ja_JP.UTF-8`); case does not
matter, nor whether parts are joined by `-` or `_`. Scripts are ISO 15924 codes (`Hans`, `Thai`).
Ranges of characters follow the blocks of Unicode 16.
"""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

# ISO 639-1 code, then its ISO 639-2 and 639-3 codes, then the members of the macrolanguage that
# corpora name.
_LANGUAGES = """
aa aar; ab abk; ae ave; af afr; ak aka fat; am amh; an arg
ar ara arb arz ary apc ajp acm acq aeb ars; as asm; av ava; ay aym ayr
az aze azj azb; ba bak; be bel; bg bul; bi bis; bm bam; bn ben; bo bod tib; br bre; bs bos; ca cat
ce che; ch cha; co cos; cr cre; cs ces cze; cu chu; cv chv; cy cym wel; da dan; de deu ger; dv div
dz dzo; ee ewe; el ell gre; en eng; eo epo; es spa; et est ekk; eu eus baq; fa fas per pes prs
ff ful fuv; fi fin; fj fij; fo fao; fr fra fre; fy fry; ga gle; gd gla; gl glg; gn grn gug; gu guj
gv glv; ha hau; he heb iw; hi hin; ho hmo; hr hrv; ht hat; hu hun; hy hye arm; hz her; ia ina
id ind in; ie ile; ig ibo; ii iii; ik ipk; io ido; is isl ice; it ita; iu iku; ja jpn; jv jav jw
ka kat geo; kg kon kwy; ki kik; kj kua; kk kaz; kl kal; km khm; kn kan; ko kor; kr kau knc; ks kas
ku kur kmr; kv kom; kw cor; ky kir; la lat; lb ltz; lg lug; li lim; ln lin; lo lao; lt lit; lu lub
lv lav lvs; mg mlg plt; mh mah; mi mri mao; mk mkd mac; ml mal; mn mon khk; mr mar; ms msa may zsm
mt mlt; my mya bur; na nau; nd nde; ne nep npi; ng ndo; nl nld dut; no nor nb nob nn nno; nr nbl
nv nav; ny nya; oc oci; oj oji; om orm gaz; or ori ory; os oss; pa pan pnb; pi pli; pl pol
ps pus pbt; pt por; qu que quy quz; rm roh; rn run; ro ron rum mo; ru rus; rw kin; sa san; sc srd
sd snd; se sme; sg sag; si sin; sk slk slo; sl slv; sm smo; sn sna; so som; sq sqi alb als; sr srp
ss ssw; st sot; su sun; sv swe; sw swa swh; ta tam; te tel; tg tgk; th tha; ti tir; tk tuk
tl tgl fil; tn tsn; to ton; tr tur; ts tso; tt tat; tw twi; ty tah; ug uig; uk ukr; ur urd
uz uzb uzn; ve ven; vi vie; vo vol; wa wln; wo wol; xh xho; yi yid ydd; yo yor; za zha
zh zho chi cmn yue wuu gan hak hsn nan lzh; zu zul
"""
# ISO 15924 codes of languages that are not written in Latin letters, by ISO 639-1 code, or 639-3
# where there is none. A member of a macrolanguage stands here if it differs from it.
_SCRIPTS = """
Arab: ar azb bal ckb fa glk ks lrc mzn pnb ps sd sdh skr ug ur
Armn: hy
Beng: as bn bpy mni
Cans: cr iu
Cher: chr
Cyrl: ab av ba be bg bxr ce chm cu cv kbd kk koi krc kv ky lez mdf mhr mk mn mrj myv os ru sah sr
Cyrl: tg tt tyv udm uk xal
Deva: awa bgc bho brx doi gom hi hne hns kok mag mai mr ne new pi raj sa
Ethi: am gez ti tig
Geor: ka xmf
Grek: el grc pnt
Gujr: gu
Guru: pa
Hang: ko
Hans: zh gan hak hsn nan wuu
Hant: lzh yue
Hebr: hbo he lad yi
Jpan: ja
Khmr: km
Knda: kn tcy
Laoo: lo
Mlym: ml
Mymr: blk ksw mnw my rki shn
Nkoo: nqo
Olck: sat
Orya: or
Sinh: si
Syrc: arc syc
Taml: ta
Telu: te
Tfng: ber tzm zgh
Thaa: dv
Thai: nod sou th tts
Tibt: bo dz lbj
Yiii: ii
"""
# Scripts of a language in a region, where they differ from the language's usual one.
_REGIONS = {
    ("az", "IR"): "Arab",
    ("kk", "CN"): "Arab",
    ("ku", "IQ"): "Arab",
    ("mn", "CN"): "Mong",
    ("pa", "PK"): "Arab",
    ("sd", "IN"): "Deva",
    ("sr", "ME"): "Latn",
    ("uz", "AF"): "Arab",
    ("zh", "HK"): "Hant",
    ("zh", "MO"): "Hant",
    ("zh", "TW"): "Hant",
    ("yue", "CN"): "Hans",
}
# Scripts in which words are not separated by spaces.
UNSPACED = frozenset(
    "Hani Hans Hant Hanb Bopo Jpan Hira Kana Hrkt Thai Laoo Khmr Mymr Tibt Tale Talu Lana Tavt Java"
    " Bali Yiii".split()
)
# Unspaced scripts that mark the ends of syllables, so that a syllable is the unit to count.
SYLLABIC = frozenset({"Tibt"})
_RIGHT_TO_LEFT = frozenset("Adlm Arab Aran Hebr Mand Mend Nkoo Rohg Samr Syrc Thaa".split())
# What stands for another script in the table of characters and of fonts.
_SAME = {"Hans": "Hani", "Hant": "Hani", "Hanb": "Hani", "Aran": "Arab", "Kore": "Hang"}
_PARTS = {"Jpan": ("Hira", "Kana", "Hani"), "Hrkt": ("Hira", "Kana"), "Hanb": ("Hani", "Bopo")}
# First and last characters of each script; letters, marks, digits and signs of its blocks.
_RANGES = """
Latn 41-5a 61-7a aa-aa ba-ba c0-d6 d8-f6 f8-24f 250-2af 1d00-1d25 1e00-1eff 2c60-2c7f a722-a7ff
Latn ab30-ab64 ff21-ff3a ff41-ff5a
Grek 370-373 376-377 37b-37d 37f-3ff 1f00-1fff
Cyrl 400-52f 1c80-1c8f 2de0-2dff a640-a69f
Armn 531-556 559-58a 58d-58f fb13-fb17
Hebr 591-5f4 fb1d-fb4f
Arab 600-604 606-60b 60d-61a 61c-61e 620-63f 641-64a 656-66f 671-6ff 750-77f 870-8ff fb50-fdff
Arab fe70-fefc
Syrc 700-74f 860-86f
Thaa 780-7bf
Nkoo 7c0-7ff
Deva 900-950 955-963 966-97f a8e0-a8ff
Beng 980-9ff
Guru a00-a7f
Gujr a80-aff
Orya b00-b7f
Taml b80-bff
Telu c00-c7f
Knda c80-cff
Mlym d00-d7f
Sinh d80-dff
Thai e00-e3e e40-e7f
Laoo e80-eff
Tibt f00-fff
Mymr 1000-109f a9e0-a9ff aa60-aa7f
Geor 10a0-10fa 10fc-10ff 1c90-1cbf 2d00-2d2f
Hang 1100-11ff 302e-302f 3130-318f 3200-321e 3260-327e a960-a97f ac00-d7ff ffa0-ffdc
Ethi 1200-139f 2d80-2ddf ab01-ab2f
Cher 13a0-13ff ab70-abbf
Cans 1400-167f 18b0-18ff
Khmr 1780-17ff 19e0-19ff
Mong 1800-18af
Tale 1950-197f
Talu 1980-19df
Lana 1a20-1aaf
Bali 1b00-1b7f
Olck 1c50-1c7f
Tfng 2d30-2d7f
Hani 2e80-2fdf 3005-3005 3007-3007 3021-3029 3038-303b 3400-4dbf 4e00-9fff f900-faff 20000-323af
Hira 3041-3096 309d-309f
Kana 30a1-30fa 30fc-30ff 31f0-31ff ff66-ff9f
Bopo 2ea-2eb 3105-312f 31a0-31bf
Yiii a000-a4cf
Java a980-a9df
Tavt aa80-aadf
Adlm 1e900-1e95f
"""
# Noto families of a script where the name is not `Noto Sans` and the script's English name.
_NOTO = {
    "Latn": "", "Grek": "", "Cyrl": "", "Hani": "CJK SC", "Hans": "CJK SC", "Hant": "CJK TC",
    "Hira": "CJK JP", "Kana": "CJK JP", "Jpan": "CJK JP", "Bopo": "CJK TC", "Hang": "CJK KR",
    "Arab": "Arabic", "Armn": "Armenian", "Beng": "Bengali", "Cans": "Canadian Aboriginal",
    "Cher": "Cherokee", "Deva": "Devanagari", "Ethi": "Ethiopic", "Geor": "Georgian",
    "Gujr": "Gujarati", "Guru": "Gurmukhi", "Hebr": "Hebrew", "Khmr": "Khmer", "Knda": "Kannada",
    "Laoo": "Lao", "Mlym": "Malayalam", "Mong": "Mongolian", "Mymr": "Myanmar", "Nkoo": "NKo",
    "Olck": "Ol Chiki", "Orya": "Oriya", "Sinh": "Sinhala", "Syrc": "Syriac", "Taml": "Tamil",
    "Telu": "Telugu", "Tfng": "Tifinagh", "Thaa": "Thaana", "Thai": "Thai", "Yiii": "Yi",
    "Java": "Javanese", "Bali": "Balinese", "Lana": "Tai Tham", "Tale": "Tai Le",
    "Talu": "New Tai Lue", "Tavt": "Tai Viet", "Adlm": "Adlam",
}  # fmt: skip
# Families that draw a script and are installed where Noto is not.
_OTHERS = {
    "Hani": ("WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "Microsoft YaHei"),
    "Hira": ("IPAexGothic", "Hiragino Sans", "Yu Gothic", "WenQuanYi Zen Hei"),
    "Hang": ("NanumGothic", "Apple SD Gothic Neo", "Malgun Gothic", "WenQuanYi Zen Hei"),
    "Thai": ("Loma", "Garuda", "Thonburi", "Leelawadee UI"),
    "Deva": ("Lohit Devanagari", "Kohinoor Devanagari", "Nirmala UI"),
    "Tibt": ("Jomolhari", "Kailasa", "Microsoft Himalaya"),
}


def _rows(text: str) -> Iterable[list[str]]:
    for row in re.split(r"[;\n]", text):
        if row.strip():
            yield row.split()


_THREE = {row[0]: row[1] for row in _rows(_LANGUAGES) if len(row) > 1}
_BASE = {other: row[0] for row in _rows(_LANGUAGES) for other in row}
_USUAL = {code: script.rstrip(":") for script, *codes in _rows(_SCRIPTS) for code in codes}
_BLOCKS = sorted(
    (int(first, 16), int(last, 16), script)
    for script, *ranges in _rows(_RANGES)
    for first, last in (one.split("-") for one in ranges)
)


@cache
def _parsed(code: str) -> tuple[str, str, str, str]:
    """Return (language, base language, script, region) of a code, "" where it does not say."""
    tag, _, modifier = code.strip().partition("@")
    first, *rest = re.split("[-_]", tag.partition(".")[0])
    language, script, region = first.lower(), "", ""
    for part in rest:
        if len(part) == 1:  # an extension: what follows is not of the language
            break
        if len(part) == 4 and part.isalpha() and not script:
            script = part.title()
        elif (
            len(part) == 3 and part.isalpha() and _BASE.get(part.lower(), "") == _BASE.get(language)
        ):
            language = part.lower()  # an extended language, as in zh-yue
        elif len(part) == 2 and part.isalpha() and not region:
            region = part.upper()
    script = script or {"latin": "Latn", "cyrillic": "Cyrl"}.get(modifier.lower(), "")
    base = _BASE.get(language, language)
    if not script:
        script = _REGIONS.get((language, region), "") or _REGIONS.get((base, region), "")
    if not script:
        script = _USUAL.get(language) or _USUAL.get(base) or ("Latn" if base in _BASE else "")
    return language, base, script, region


def base_language(code: str) -> str:
    """Return the ISO 639-1 code of a language, dialect or variety: `zh` of `yue_Hant`.

    A language without one keeps its own code, in lower case and without script and region.
    """
    return _parsed(code)[1]


def three_letters(code: str) -> str:
    """Return the ISO 639-3 code of a language, as far as the table holds it: `hin` of `hi`."""
    base = base_language(code)
    return _THREE.get(base, base)


def script_of(code: str) -> str:
    """Return the ISO 15924 code of the script in which a language is written.

    The code's own script counts before its region's and the language's usual one; "" of a language
    that the table lacks.
    """
    return _parsed(code)[2]


def is_unspaced(code: str) -> bool:
    """Return whether the words of a language are written without spaces between them."""
    return script_of(code) in UNSPACED


def direction(code: str) -> str:
    """Return "rtl" or "ltr", as the attribute `dir` of HTML has it."""
    return "rtl" if script_of(code) in _RIGHT_TO_LEFT else "ltr"


def fonts_for(script: str) -> tuple[str, ...]:
    """Return the font families that draw a script (ISO 15924), the preferred one first."""
    name = _NOTO.get(script, _NOTO.get(_SAME.get(script, script)))
    noto = (f"Noto Sans {name}".strip(),) if name is not None else ()
    if script == "Tibt":
        noto = ("Noto Serif Tibetan",)
    return (*noto, *_OTHERS.get(_SAME.get(script, script), ()))


@cache
def character_script(character: str) -> str:
    """Return the ISO 15924 code of a character's script; "" of what scripts share.

    Han characters are `Hani`, whatever the language.
    """
    place = ord(character)
    for first, last, script in _BLOCKS:
        if first <= place <= last:
            return script
    return ""


def scripts_in(text: str) -> tuple[str, ...]:
    """Return the scripts of a text's characters in the order in which they first occur."""
    found = dict.fromkeys(map(character_script, unicodedata.normalize("NFC", text)))
    return tuple(script for script in found if script)


def character_class(scripts: Iterable[str]) -> str:
    """Return what stands between the brackets of a regular expression for scripts' characters."""
    wanted = {part for one in scripts for part in _PARTS.get(one, (_SAME.get(one, one),))}
    return "".join(
        f"{re.escape(chr(first))}-{re.escape(chr(last))}"
        for first, last, script in _BLOCKS
        if script in wanted
    )
