"""The keys forcing, fallback and lens: what is refused, and what jobs depend on."""

import copy

import pytest

from langneurons.base.errors import ConfigError
from langneurons.config import build
from langneurons.config.config import entry_languages
from langneurons.jobs.parameters import stage
from langneurons.reporting.kinds import named_figure

QUESTIONS = {"kind": "jsonl", "path": "q/{lang}.jsonl"}
GOOD = {
    "name": "good",
    "models": {"m": {"source": {"kind": "local", "path": "m"}}},
    "language_sets": {"big": ["vi", "en", "hi"], "small": ["zh", "en"]},
    "corpus": {"source": {"kind": "mini"}},
    "selections": {"lape": {"method": "lape"}, "control": {"method": "random", "like": "lape"}},
    "interventions": {
        "zero": {"operation": "set", "value": 0},
        "arithmetic": {
            "steps": [
                {"neurons": "source", "operation": "set", "value": 0},
                {"operation": "add", "value": "mean"},
            ]
        },
        "english": {"neurons": "en", "operation": "set", "value": 0},
        "hindi": {"neurons": "hi", "operation": "set", "value": 0},
    },
    "forcing": {"interventions": ["arithmetic"], "questions": QUESTIONS},
    "fallback": {"interventions": ["zero"], "questions": QUESTIONS},
    "lens": {"interventions": ["arithmetic"], "targets": ["vi"], "questions": QUESTIONS},
}


def changed(**edits):
    """Return GOOD with values at dotted paths (`__` for the dot)."""
    raw = copy.deepcopy(GOOD)
    for path, value in edits.items():
        *above, last = path.split("__")
        place = raw
        for key in above:
            place = place[key]
        place[last] = value
    return raw


def test_only_jobs_that_ask_by_the_chat_template_depend_on_it():
    system = {"system": "Be kind."}
    plain, chat = (
        build(changed(forcing__chat=True, models__m__chat=given)) for given in ({}, system)
    )
    cell = {"model": "m", "variant": "corrected", "langset": "en-hi-vi", "selection": "lape"}
    cell["intervention"] = "arithmetic"
    own = stage(chat, "force_language", **cell)["decoding"]
    assert own["chat"] == {"template": None, "system": "Be kind.", "options": {}}
    assert own["message"] == "{question}"
    assert stage(plain, "force_language", **cell)["decoding"]["chat"]["system"] is None
    cell["intervention"] = "zero"
    assert "chat" not in stage(chat, "fall_back", **cell)["decoding"]
    for rule, names in (("collect_statistics", {"lang": "en"}), ("prepare_model", {})):
        found = [stage(one, rule, model="m", **names) for one in (plain, chat)]
        assert found[0] == found[1]


def test_a_template_of_ones_own_is_part_of_what_a_job_depends_on(tmp_path):
    file = tmp_path / "template.jinja"
    file.write_text("{{ messages[0].content }}", encoding="utf-8")
    config = build(changed(forcing__chat=True, models__m__chat={"template": str(file)}))
    cell = {"model": "m", "variant": "corrected", "langset": "en-hi-vi", "selection": "lape"}
    found = stage(config, "force_language", **cell, intervention="arithmetic")
    assert found["decoding"]["chat"]["template"] == "{{ messages[0].content }}"


def test_asking_by_a_chat_template_needs_a_model_with_one():
    with pytest.raises(ConfigError, match=r"forcing\.chat: true, but no model has the key `chat`"):
        build(changed(forcing__chat=True))
    with pytest.raises(ConfigError, match="message.*must hold {question} once"):
        build(changed(forcing__message="Why?"))


def test_cells_of_every_set():
    config = build(GOOD)
    assert config.generation_cells("m", "forcing") == [
        ("en-hi-vi", "lape", "arithmetic"),
        ("en-zh", "lape", "arithmetic"),
        ("en-hi-vi", "control", "arithmetic"),
        ("en-zh", "control", "arithmetic"),
    ]
    # Vietnamese is in one set only; the other is read untouched.
    assert config.lens_cells("m") == {
        "en-hi-vi": [("lape", "arithmetic", "vi"), ("control", "arithmetic", "vi")],
        "en-zh": [],
    }


def test_a_set_takes_part_with_the_languages_it_holds():
    config = build(changed(forcing__sources=["hi", "vi"], forcing__targets=["vi", "zh"]))
    assert entry_languages(config.forcing, ["vi", "en", "hi"]) == (("hi", "vi"), ("vi",))
    assert entry_languages(config.forcing, ["zh", "en"]) == ((), ("zh",))
    cells = config.generation_cells("m", "forcing")
    assert {folder for folder, _, _ in cells} == {"en-hi-vi"}


def test_fallback_keeps_its_order_and_the_sets_languages():
    config = build(changed(fallback__order=["hi", "fr", "en"]))
    settings = stage(
        config,
        "fall_back",
        model="m",
        variant="corrected",
        langset="en-hi-vi",
        selection="lape",
        intervention="zero",
    )
    assert settings["order"] == ["hi", "en"]
    default = build(GOOD)
    assert entry_languages(default.fallback, ["ja", "ko", "en", "mt"])[1] == ("en", "ko", "ja")


@pytest.mark.parametrize(
    "edits, words",
    [
        ({"forcing__interventions": []}, "forcing.interventions"),
        ({"forcing__interventions": ["zerro"]}, "forcing.interventions: 'zerro'.*'zero'"),
        ({"forcing__selections": ["lap"]}, "forcing.selections: 'lap'.*'lape'"),
        ({"forcing__sources": ["en", "en"]}, "forcing.sources: en listed more than once"),
        ({"forcing__targets": ["xx"]}, "forcing.targets: 'xx'"),
        ({"forcing__targets": []}, "forcing.targets: empty"),
        ({"forcing__template": "Q: {frage}"}, r"forcing.template: .*\{question\}"),
        ({"forcing__template": "Q"}, r"forcing.template: .*\{question\}"),
        ({"forcing__repetition_penalty": 0}, "forcing.repetition_penalty"),
        ({"forcing__identifier": {"kind": "lid"}}, "forcing.identifier.*'lid'.*fasttext"),
        ({"forcing__identifier": {"kind": "fasttext"}}, "forcing.identifier.*path.*missing"),
        ({"forcing__questions": {"kind": "jsonl", "path": "q.jsonl"}}, r"questions.path.*\{lang\}"),
        ({"forcing__interventions": ["hindi"]}, "interventions.hindi.*'hi'.*'small'.*forcing"),
        ({"forcing__max_new_token": 5}, "max_new_token.*'max_new_tokens'"),
        ({"fallback__interventions": ["arithmetic"]}, "arithmetic.*fallback has no pairs"),
        ({"fallback__order": ["fr", "de"]}, "fallback: no language set"),
        ({"fallback__language": "xx"}, "fallback.language: 'xx'"),
        ({"lens__targets": []}, "lens: `interventions` and `targets` go together"),
        ({"lens__purity": 0.4}, "lens.purity"),
        ({"lens__languages": ["fr"]}, "lens.languages: 'fr'"),
        ({"perplexity": {"interventions": ["arithmetic"]}}, "perplexity has no pairs"),
        (
            {"interventions__zero": {"neurons": "sorce", "operation": "set", "value": 0}},
            "interventions.zero.neurons: 'sorce'.*'source'",
        ),
        ({"results": {"group_by": "script"}}, "results.group_by: 'script'.*family"),
    ],
)
def test_mistakes_are_named(edits, words):
    with pytest.raises(ConfigError, match=f"(?s){words}"):
        build(changed(**edits))


def test_mini_questions_have_their_languages():
    raw = changed(forcing__questions={"kind": "mini"})
    build(raw)
    raw["language_sets"] = {"big": ["vi", "en", "fi"]}
    raw["corpus"] = {"source": {"kind": "jsonl", "path": "t/{lang}.jsonl"}}
    del raw["interventions"]["hindi"]
    with pytest.raises(ConfigError, match="forcing.questions: 'fi'"):
        build(raw)


@pytest.mark.parametrize(
    "edits",
    [
        {"language_sets": {"other": ["hi", "vi", "en"], "small": ["en", "zh"]}},
        {"forcing__identifier": {"kind": "fasttext", "path": "lid.176.bin"}},
        {"forcing__degenerate": 0.3},
        {"interventions__english__value": 1},
    ],
)
def test_names_orders_and_identifiers_do_not_decode_again(edits):
    cell = {"model": "m", "variant": "corrected", "langset": "en-hi-vi", "selection": "lape"}
    before = stage(build(GOOD), "force_language", intervention="arithmetic", **cell)
    after = stage(build(changed(**edits)), "force_language", intervention="arithmetic", **cell)
    assert before == after


def test_what_decoding_depends_on():
    cell = {"model": "m", "variant": "corrected", "langset": "en-hi-vi", "selection": "lape"}
    before = stage(build(GOOD), "force_language", intervention="arithmetic", **cell)
    assert before["sources"] == before["targets"] == ["en", "hi", "vi"]
    for edits in (
        {"forcing__repetition_penalty": 1.0},
        {"forcing__stop": ["\n"]},
        {"forcing__targets": ["hi"]},
        {"interventions__arithmetic__steps": [{"operation": "add", "value": "mean"}]},
    ):
        config = build(changed(**edits))
        assert stage(config, "force_language", intervention="arithmetic", **cell) != before


def test_a_protocol_reads_the_statistic_elsewhere():
    raw = changed(protocols=["corrected", "paper"])
    cell = {"model": "m", "langset": "en-hi-vi", "selection": "lape", "intervention": "arithmetic"}
    sites = [
        stage(build(raw), "force_language", variant=variant, **cell)["intervention"]["steps"][1]
        for variant in ("corrected", "paper")
    ]
    assert [step["statistic_site"] for step in sites] == ["act", "gate"]
    assert build(raw).variants("generation") == ("corrected", "paper")


FIGURE = {"model": "m", "languages": "big"}


@pytest.mark.parametrize(
    "figure, path",
    [
        ({"kind": "forcing", "intervention": "arithmetic"}, "big/arithmetic/forcing.svg"),
        ({"kind": "fallback", "intervention": "zero"}, "big/zero/fallback.svg"),
        ({"kind": "lens"}, "big/lens.svg"),
        ({"kind": "lens_change", "intervention": "arithmetic"}, "big/arithmetic/lens_change.svg"),
    ],
)
def test_named_figures(figure, path):
    config = build(changed(results={"figures": {"fig1": FIGURE | figure}}))
    assert f"{named_figure(config, 'fig1').stem}.svg" == f"results/figures/good/m/corrected/{path}"


@pytest.mark.parametrize(
    "figure, words",
    [
        ({"kind": "forcing", "intervention": "zero"}, "draws no such figure"),
        (
            {"kind": "lens_change", "intervention": "arithmetic", "languages": "small"},
            "draws no such figure",
        ),
        ({"kind": "fallback"}, "intervention: missing"),
        ({"kind": "lens", "intervention": "zero"}, "takes none"),
    ],
)
def test_figures_that_are_not_drawn(figure, words):
    with pytest.raises(ConfigError, match=words):
        build(changed(results={"figures": {"fig1": FIGURE | figure}}))


def test_the_plan_counts_the_answers():
    from pathlib import Path

    from langneurons.base.yaml import parse_yaml
    from langneurons.jobs.costs import ASSUMPTIONS, Planner

    assumed = parse_yaml((Path(__file__).parent.parent / ASSUMPTIONS).read_text())
    geometry = {"parameters": 1e9, "layers": 4, "hidden": 8, "intermediate": 16}
    geometry |= {"vocabulary": 100, "shared": 4}
    assumed["models"]["m"] = geometry
    config = build(changed(forcing__limit=5, forcing__max_new_tokens=100))
    stages = {one.rule: one for one in Planner(config, assumed, Path("nowhere")).lines()}
    assert [stages[rule].jobs for rule in ("force_language", "fall_back", "read_layers")] == [
        4,
        4,
        2,
    ]
    # Three sources and three targets beside the untouched model, then two and two; twice.
    answers = 2 * (3 * 4 + 2 * 3) * 5
    width = 100 + assumed["tokens_per_item"]["question"]
    assert stages["force_language"].million_tokens == pytest.approx(answers * width / 1e6)
    assert stages["force_language"].gpu_hours > 0


def test_a_language_that_the_identifier_cannot_tell_is_refused_before_decoding():
    raw = changed(language_sets={"pair": ["en", "haw"]}, languages={"haw": {"name": "Hawaiian"}})
    raw["corpus"]["source"] = {"kind": "jsonl", "path": "{lang}.jsonl"}
    del raw["lens"], raw["interventions"]["hindi"]
    with pytest.raises(ConfigError, match="forcing.targets: 'haw' .* py3langid"):
        build(raw)
    raw["forcing"]["identifier"] = {"kind": "fasttext", "path": "lid.176.bin"}
    assert build(raw).generation_cells("m", "forcing")


@pytest.mark.parametrize(
    ("languages", "targets", "drawn"),
    [(None, ["vi"], True), (["vi"], ["vi"], False), (["vi"], ["en", "vi"], True)],
)
def test_the_change_of_the_lens_is_drawn_of_prompts_in_other_languages(languages, targets, drawn):
    from langneurons.reporting.cells import lens_changes

    raw = {
        "name": "mine",
        "models": {"tiny": {"source": {"kind": "local", "path": "tiny"}}},
        "language_sets": {"two": ["en", "vi"]},
        "corpus": {"source": {"kind": "mini"}},
        "selections": {"lape": {"method": "lape"}},
        "interventions": {"zero": {"operation": "set", "value": 0}},
        "lens": {"interventions": ["zero"], "targets": targets},
    }
    if languages is not None:
        raw["lens"]["languages"] = languages
    assert bool(list(lens_changes(build(raw), "tiny"))) == drawn
