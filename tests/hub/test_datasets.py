"""Rows from the hub: of the commit that is named and no other, whatever the connection does."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hub.repositories import card, jsonl, parquet
from hub.server import STRANGER, Fault

from langneurons.base.errors import InputError
from langneurons.base.io import read_json, read_jsonl
from langneurons.base.shipped import TASK_DEFINITIONS
from langneurons.data import hub_rows, sources
from langneurons.data.corpus import fetch_text
from langneurons.data.settings import CorpusConfig
from langneurons.evaluation.definition import load_task
from langneurons.evaluation.items import fetch_rows, prepare_task
from langneurons.models import hub as client

OLD, NEW = "1" * 40, "2" * 40


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Run in a folder of its own, where commits are kept."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN", 0)


def rows_of(name, number, text="w"):
    return [{"id": f"{name}{i}", "text": f"{text}{i}", "more": "x" * 2000} for i in range(number)]


def serve(hub, name, commit, langs, gated=False, **rows):
    """Put a data set with a parquet file per language on the hub."""
    files = {
        f"{lang}/train-0.parquet": parquet(rows.get(lang) or rows_of(lang, 50), 10)
        for lang in langs
    }
    hub.add(
        "datasets",
        name,
        card({lang: {"train": f"{lang}/*"} for lang in langs}, files),
        commit,
        gated,
    )


def source(name, revision=OLD, **more):
    given = {"kind": "hub", "dataset": name, "config": "{lang}", "split": "train"}
    return given | {"revision": revision} | more


def read(name, lang="xx", **more):
    return sources.read(source(name, **more), "tasks.toy.source", lang)


def test_rows_are_those_of_the_pinned_commit(hub):
    serve(hub, "owner/pinned", OLD, ["xx"])
    serve(hub, "owner/pinned", NEW, ["xx"], xx=rows_of("new", 7))
    found = read("owner/pinned")
    assert [row["id"] for row in found] == [f"xx{i}" for i in range(50)]
    assert found.origin == {
        "kind": "hub",
        "dataset": "owner/pinned",
        "commit": OLD,
        "split": "train",
        "config": "xx",
    }
    assert next(iter(read("owner/pinned"))).place == "owner/pinned (xx, train), row 1"
    assert len(list(read("owner/pinned", revision=NEW))) == 7


def test_main_that_moves_between_two_languages_gives_both_the_first_commit(hub):
    serve(hub, "owner/moving", OLD, ["xx", "yy"])
    first = read("owner/moving", "xx", revision="newest")
    assert first.origin["commit"] == OLD and first.origin["asked"] == "newest"
    serve(hub, "owner/moving", NEW, ["xx", "yy"], yy=rows_of("moved", 3))
    second = read("owner/moving", "yy", revision="newest")
    assert second.origin["commit"] == OLD and len(list(second)) == 50
    kept = Path("resources/commits/datasets/owner--moving.json")
    assert read_json(kept) == {"repo": "owner/moving", "commit": OLD}


def test_of_jobs_that_ask_at_the_same_time_one_decides(hub, tmp_path):
    commits = iter([OLD, NEW] * 8)
    found, barrier = [], threading.Barrier(8)

    class Api:
        def dataset_info(self, repo):
            barrier.wait()
            return type("Info", (), {"sha": next(commits)})

    def ask():
        found.append(client.commit_of("dataset", "owner/race", "newest", tmp_path / "kept.json"))

    import huggingface_hub

    real, huggingface_hub.HfApi = huggingface_hub.HfApi, Api
    try:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        huggingface_hub.HfApi = real
    assert len(found) == 8 and len(set(found)) == 1
    assert sorted(path.name for path in tmp_path.glob("*kept*")) == ["kept.json"]


CACHED = """
import sys
import datasets
from langneurons.base.errors import InputError
from langneurons.models import hub
from langneurons.data import sources
hub.WAITS = (0.0,) * 9
if sys.argv[1] == "cache":
    datasets.load_dataset("owner/cached", "xx", revision=sys.argv[2])
source = {"kind": "hub", "dataset": "owner/cached", "config": "xx", "split": "train"}
try:
    print(len(list(sources.read(source | {"revision": sys.argv[2]}, "k", "xx"))))
except InputError as error:
    print("refused:", error)
"""


def job(tmp_path, *arguments, **environment):
    """Run a job in a process and cache of its own."""
    environment = os.environ | {"HF_HOME": str(tmp_path / "home")} | environment
    done = subprocess.run(
        [sys.executable, "-c", CACHED, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_a_cache_with_another_commit_is_refused_when_the_hub_does_not_answer(hub, tmp_path):
    serve(hub, "owner/cached", OLD, ["xx"])
    serve(hub, "owner/cached", NEW, ["xx"], xx=rows_of("new", 7))
    assert job(tmp_path, "cache", NEW) == "7"
    down = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    told = job(tmp_path, "fetch", OLD, **down)
    assert told.startswith(f"refused: data set owner/cached (xx, train) at {OLD}: the hub at http:")
    assert "HF_HUB_OFFLINE=1 uses the cache alone" in told
    told = job(tmp_path, "fetch", OLD, HF_HUB_OFFLINE="1")
    assert told.startswith("refused:") and "switched off" in told and NEW in told
    # The commit that is asked for may come from the cache.
    assert job(tmp_path, "fetch", NEW, HF_HUB_OFFLINE="1") == "7"
    told = job(tmp_path / "other", "fetch", OLD, HF_HUB_OFFLINE="1")
    assert "is not in the cache, and the hub is switched off (HF_HUB_OFFLINE" in told


def test_a_library_that_answers_from_its_cache_is_not_believed(hub, monkeypatch):
    """The hub answers to the first question, and then no more."""
    serve(hub, "owner/believed", OLD, ["xx"])
    import datasets

    other = type("Builder", (), {"hash": NEW})
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda *given, **more: other)
    words = f"no answer, and the cache holds commit {NEW} in place of {OLD}, which is not used"
    with pytest.raises(InputError, match=words):
        list(read("owner/believed"))


@pytest.mark.parametrize("kind", (429, 503, "reset", "cut"))
@pytest.mark.parametrize("where", ("README", "/tree/|paths-info", "resolve/.*parquet", "/cdn/"))
def test_what_passes_is_tried_again(hub, kind, where, monkeypatch):
    for name in ("READ_RETRY", "READ_SERVER_UNAVAILABLE_RETRY", "READ_RATE_LIMIT_RETRY"):
        monkeypatch.setattr(f"datasets.config.STREAMING_{name}_INTERVAL", 0)
    name = f"owner/faults-{kind}-{abs(hash(where)) % 1000}"
    serve(hub, name, OLD, ["xx"])
    hub.faults = [Fault(kind, where, times=1, retry_after="0")]
    assert [row["id"] for row in read(name)] == [f"xx{i}" for i in range(50)]


def test_a_stream_that_breaks_goes_on_after_the_rows_that_have_come(hub, monkeypatch):
    serve(hub, "owner/breaks", OLD, ["xx"])
    real, broken = hub_rows._Chained.__iter__, [12, 30]

    def breaking(self):
        for number, row in enumerate(real(self)):
            if broken and number == broken[0]:
                broken.pop(0)
                raise ConnectionError("gone")
            yield row

    monkeypatch.setattr(hub_rows._Chained, "__iter__", breaking)
    assert [row["id"] for row in read("owner/breaks")] == [f"xx{i}" for i in range(50)]
    assert not broken


def test_a_shuffle_holds_every_row_once_and_mixes_files_that_are_read_in_turns():
    parts = [lambda k=k: iter([f"{k}-{i}" for i in range(10)]) for k in range(5)]
    rows = list(hub_rows._shuffled(parts, seed=1, buffer=7, shards=2))
    assert sorted(rows) == sorted(f"{k}-{i}" for k in range(5) for i in range(10))
    assert rows == list(hub_rows._shuffled(parts, seed=1, buffer=7, shards=2))
    assert rows != list(hub_rows._shuffled(parts, seed=2, buffer=7, shards=2))
    assert len({row[0] for row in rows[:10]}) == 2
    # A buffer of one row keeps the order of the files and of their rows.
    assert len({row[0] for row in list(hub_rows._shuffled(parts, 3, 1, 1))[:10]}) == 1
    for kept in (1, 3, 100):
        assert len(list(hub_rows._shuffled(parts, 4, kept, 3))) == 50
    assert list(hub_rows._shuffled([], 0, 5, 2)) == []


@pytest.mark.parametrize(
    "change, words",
    [
        ({"config": "xy"}, r"no configuration 'xy'; configurations: xx. Did you mean 'xx'\?"),
        ({"split": "trian"}, r"no split 'trian'; splits: train. Did you mean 'train'\?"),
        ({"split": "train[:9]"}, "no split .*A part of a split is named with `rows` or `limit`"),
        ({"revision": NEW}, "has no such commit, or no longer: data set owner/words"),
        ({"dataset": "owner/none"}, "has no data set owner/none .* HF_TOKEN"),
        ({"config": "{language}"}, r"'\{language\}' is not a known brace"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub, change, words):
    serve(hub, "owner/words", OLD, ["xx"])
    with pytest.raises(ValueError, match=words) as caught:
        list(sources.read(source("owner/words") | change, "tasks.toy.source", "xx"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("token", (STRANGER, None))
def test_a_gated_data_set_says_what_to_do(hub, token, monkeypatch):
    serve(hub, "owner/closed", OLD, ["xx"], gated="auto")
    monkeypatch.delenv("HF_TOKEN")
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match="owner/closed .* asks for consent to its terms.*HF_TOKEN"):
        list(read("owner/closed"))


def test_a_folder_of_that_name_does_not_take_the_place_of_the_hub(hub):
    serve(hub, "owner/hidden", OLD, ["xx"])
    Path("owner/hidden").mkdir(parents=True)
    with pytest.raises(InputError, match="a folder owner/hidden lies here"):
        list(read("owner/hidden"))


def test_text_is_streamed_in_the_columns_that_are_read(hub, tmp_path, monkeypatch):
    files = {f"xx/train-{k}.parquet": parquet(rows_of(f"{k}-", 40, f"{k} "), 10) for k in range(4)}
    hub.add("datasets", "owner/text", card({"xx": {"train": "xx/*"}}, files), OLD)

    def fetched(**more):
        given = source("owner/text", text_field="text", id_field="id", **more)
        made = CorpusConfig.model_validate({"source": given, "heldout_fraction": 0.3})
        fetch_text(made, "xx", tmp_path / "out", tmp_path / "about")
        return [row["id"] for row in read_jsonl(tmp_path / "out")]

    asked, real = [], hub_rows._Parquet
    monkeypatch.setattr(
        hub_rows, "_Parquet", lambda url, columns: asked.append(columns) or real(url, columns)
    )
    first = fetched(buffer=20, characters=100)
    assert asked == [["id", "text"]] * 4
    assert first == fetched(buffer=20, characters=100) and len(first) < 60
    # Both the seed and the number of files at once decide the sample.
    assert first != fetched(buffer=20, characters=100, seed=1)
    one = fetched(buffer=5, characters=60, shards=1)
    assert first != one and len({name.split("-")[0] for name in one}) == 1
    everything = fetched(seed=None, characters=10**6)
    assert everything == [f"{k}-{i}" for k in range(4) for i in range(40)]
    about = read_json(tmp_path / "about")
    assert about["sources"][0]["commit"] == OLD and about["documents"] == 160
    with pytest.raises(InputError, match="no field 'txt'; fields: id, text, more. Did you mean"):
        made = CorpusConfig.model_validate({"source": source("owner/text", text_field="txt")})
        fetch_text(made, "xx", tmp_path / "out")


def test_fields_of_several_configurations_are_aligned(hub):
    configs = {"eng_Latn": ["one", "two"], "cmn_Hans": ["一", "二"]}
    files = {
        f"devtest/{name}.jsonl": jsonl([{"id": i, "text": t} for i, t in enumerate(texts)])
        for name, texts in configs.items()
    }
    made = card({name: {"devtest": f"devtest/{name}.jsonl"} for name in configs}, files)
    path = TASK_DEFINITIONS / "flores.yaml"
    task = load_task(path)
    hub.add("datasets", "owner/flores", made, OLD)
    moved = task.hub.model_copy(update={"dataset": "owner/flores", "revision": OLD})
    rows = list(fetch_rows(task.model_copy(update={"hub": moved}), {"kind": "hub"}, "zh"))
    assert rows == [
        {"sentence_src": "one", "sentence_tgt": "一"},
        {"sentence_src": "two", "sentence_tgt": "二"},
    ]
    files["devtest/cmn_Hans.jsonl"] = jsonl([{"id": 0, "text": "一"}])
    hub.add("datasets", "owner/flores", made | files, NEW)
    short = task.hub.model_copy(update={"dataset": "owner/flores", "revision": NEW})
    with pytest.raises(InputError, match="owner/flores .*cmn_Hans.* different length"):
        list(fetch_rows(task.model_copy(update={"hub": short}), {"kind": "hub"}, "zh"))


def test_a_column_that_the_task_does_not_read_may_hold_anything(hub, tmp_path):
    """Belebele's dates come as time stamps, which JSON cannot hold."""
    row = {"flores_passage": "P", "question": "Q", "correct_answer_num": "2", "ds": "2023-05-03"}
    row |= {f"mc_answer{i}": f"a{i}" for i in range(1, 5)}
    files = {"data/deu_Latn.jsonl": jsonl([row, row | {"question": "R"}])}
    made = card({"deu_Latn": {"test": "data/deu_Latn.jsonl"}}, files)
    hub.add("datasets", "owner/dates", made, OLD)
    path = TASK_DEFINITIONS / "belebele.yaml"
    given = {"kind": "hub", "dataset": "owner/dates", "config": "{code}", "revision": OLD}
    out = tmp_path / "out.jsonl"
    prepare_task(load_task(path), given, "de", out, about=tmp_path / "about")
    assert [set(one) for one in read_jsonl(out)] == [row.keys() - {"ds"}] * 2
    assert json.loads((tmp_path / "about").read_text())["source"]["commit"] == OLD
