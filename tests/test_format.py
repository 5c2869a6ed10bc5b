"""Shared folders: what is written is what docs/format.md says, and what is refused, in words."""

import hashlib
import json
import re
import shutil
import struct
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from owned import IDENTITY, TEXTS, owned_directions, owned_model, owned_neurons, owned_statistics
from safetensors import safe_open
from safetensors.numpy import save_file
from test_collect import measure
from tiny import tiny_model

import langneurons as ln
from langneurons.activations.histogram import bin_index
from langneurons.activations.settings import StatisticsConfig
from langneurons.api import shared
from langneurons.api.convert import convert
from langneurons.base.errors import InputError
from langneurons.base.io import write_tensors
from langneurons.cli import main
from langneurons.selection.run import run_selection
from langneurons.sharing.card import CARD
from langneurons.sharing.neurons import NAME, neurons_header, read_neurons, write_neurons

PAGE = (Path(__file__).parent.parent / "docs" / "format.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def model():
    return owned_model()


@pytest.fixture(scope="module")
def statistics(model):
    return owned_statistics(model)


@pytest.fixture(scope="module")
def neurons(statistics):
    return owned_neurons(statistics)


@pytest.fixture(scope="module")
def directions():
    return owned_directions(tokens={"aa": 5, "bb": 6})


@pytest.fixture(scope="module")
def saved(tmp_path_factory, model, statistics, neurons, directions):
    """Return a folder with one of each kind, which no test changes."""
    folder = tmp_path_factory.mktemp("shared")
    plan = ln.plan(neurons, "aa", "set", 0)
    ln.export(model, {"aa": plan}, folder, "lora", neurons)["aa"].path.rename(folder / "a")
    for name, one in (("s", statistics), ("n", neurons), ("d", directions)):
        one.save(folder / name, license="cc0-1.0")
    return folder


@pytest.fixture
def folders(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "mine"))


# By the text of the page alone --------------------------------------------------------------------


def card_of(folder):
    """Return the YAML header of a card."""
    _, keys, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(keys)


def by_the_page(path):
    """Return the header and arrays of a tensor file."""
    with safe_open(path, framework="numpy") as opened:
        header = json.loads(opened.metadata()["langneurons"])
        return header, {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def test_neurons_are_read_by_the_page(saved, neurons):
    card = card_of(saved / "n")
    own = card["langneurons"]
    digests = own.pop("files")
    assert list(digests) == ["neurons.safetensors"]
    path = saved / "n" / "neurons.safetensors"
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digests["neurons.safetensors"]
    header, arrays = by_the_page(path)
    assert header == own
    assert (card["license"], card["base_model"], card["library_name"]) == (
        "cc0-1.0",
        "owner/tiny",
        "langneurons",
    )
    assert (own["format"], own["version"], own["kind"]) == ("langneurons", 1, "neurons")
    assert (own["model"], own["revision"]) == ("owner/tiny", "7" * 40)
    assert (own["n_layers"], own["d_mlp"], own["method"]) == (2, 48, "lape")
    assert own["parameters"]["rate"] == 0.1 and own["columns"][0] == "score"
    for lang in own["languages"]:
        rows = neurons.frame[neurons.frame["lang"] == lang]
        assert arrays[f"{lang}.layer"].dtype == arrays[f"{lang}.neuron"].dtype == np.int32
        for column in ("layer", "neuron", *own["columns"]):
            np.testing.assert_array_equal(arrays.pop(f"{lang}.{column}"), rows[column])
    assert not arrays


def test_directions_are_read_by_the_page(saved, directions):
    own = card_of(saved / "d")["langneurons"]
    assert list(own.pop("files")) == ["directions.safetensors"]
    header, arrays = by_the_page(saved / "d" / "directions.safetensors")
    assert header == own and header["site"] == "residual_out"
    assert (own["n_layers"], own["d_model"], own["tokens"]) == (2, 32, {"aa": 5, "bb": 6})
    for lang in own["languages"]:
        assert arrays[lang].dtype == np.float32
        np.testing.assert_array_equal(arrays[lang], directions.arrays[lang])


def unpacked(raw, shape, width=8, kind="<i8"):
    """Return integers from zstd of byte planes, lowest byte first."""
    number = int(np.prod(shape))
    planes = np.frombuffer(pa.decompress(raw.tobytes(), width * number, "zstd"), np.uint8)
    return np.ascontiguousarray(planes.reshape(width, number).T).view(kind).reshape(shape)


def test_statistics_are_read_by_the_page(saved, statistics):
    own = card_of(saved / "s")["langneurons"]
    assert set(own["files"]) == {"aa.safetensors", "bb.safetensors"}
    for lang in own["languages"]:
        header, arrays = by_the_page(saved / "s" / f"{lang}.safetensors")
        assert header["lang"] == lang and header["tokens"] == own["tokens"][lang]
        assert header["corpus_hash"] == own["corpora"][lang]
        assert header["digest"] == own["statistics"][lang]
        whole = {k: unpacked(arrays[k], shape) for k, shape in header["packed"].items()}
        whole |= {name: array for name, array in arrays.items() if name.endswith(".extremes")}
        one, tokens = statistics[lang], header["tokens"]
        np.testing.assert_array_equal(whole["act.positive"] / tokens, one.probability("act"))
        total = whole["act.sum"]
        np.testing.assert_allclose((total[0] + total[1] / 2.0**40) / tokens, one.mean("act"))
        np.testing.assert_array_equal(counts_of(arrays, whole, 48), one.histogram("gate"))
        assert digest_of(header, whole) == header["digest"]
        assert {k: header[k] for k in own["settings"]} == own["settings"]


def test_the_residual_stream_is_read_by_the_page(tmp_path):
    settings = StatisticsConfig(sites=("act", "residual"), histograms=(), residual_outer=(2, 0))
    one = measure(tiny_model("llama"), settings)
    ln.Statistics({"xx": one}).save(tmp_path / "s")
    own = card_of(tmp_path / "s")["langneurons"]
    header, arrays = by_the_page(tmp_path / "s" / "xx.safetensors")
    whole = {k: unpacked(arrays[k], shape) for k, shape in header["packed"].items()}
    whole |= {name: array for name, array in arrays.items() if name.endswith(".extremes")}
    assert whole["residual.sum"].shape == (2, 3, 32)
    assert whole["residual.extremes"].shape == (3, 2, 32)
    assert whole["residual.outer.2"].shape == (2, 32 * 33 // 2)
    upper = whole["residual.outer.2"][0] + whole["residual.outer.2"][1] / 2.0**40
    second = np.zeros((32, 32))
    second[np.triu_indices(32)] = upper / header["tokens"]
    np.testing.assert_array_equal(np.triu(one.second_moment(2)), second)
    assert digest_of(header, whole) == header["digest"] == own["statistics"]["xx"]
    assert own["settings"]["residual_outer"] == [2, 0] and own["settings"]["d_model"] == 32


def counts_of(arrays, whole, d_mlp):
    """Return the counts per bin of the gate, (n_layers, d_mlp, 274), from their frames."""
    raw, ends = arrays["gate.histogram"], whole["gate.histogram_ends"]
    counts, start = np.zeros((len(ends), d_mlp, 274), np.int64), 0
    for layer, row in enumerate(ends):
        for frame, end in enumerate(row):
            size = min(48, 274 - 48 * frame)
            rows = unpacked(raw[start:end], (2 + size, d_mlp), 4, "<u4").astype(np.int64)
            below = counts[layer].sum(axis=1)
            np.testing.assert_array_equal(rows[0] + (rows[1] << 32), below)
            codes = rows[2:]
            change = np.where(codes % 2, -(codes + 1) // 2, codes // 2)
            counts[layer, :, 48 * frame : 48 * frame + size] = change.cumsum(axis=0).T
            start = end
    np.testing.assert_array_equal(counts.sum(axis=1), whole["gate.histogram_pooled"])
    return counts


def digest_of(header, whole):
    """Return the content digest."""
    first = PAGE.split("1. a JSON object")[1].split("2. for each site")[0]
    keys = re.findall(r"`([a-z_]+)`", first)
    assert len(keys) == 19
    given = {key: header[key] for key in keys}
    given |= {key: header[key] for key in ("d_model", "residual_outer") if key in header}
    found = hashlib.sha256(json.dumps(given, sort_keys=True, ensure_ascii=False).encode())
    for site in sorted(header["sites"]):
        names = ["positive", "sum", "square", "absolute", "extremes", "histogram_pooled"]
        rows = header["residual_outer"] if site == "residual" else ()
        for name in [*names, *(f"outer.{row}" for row in rows)]:
            if f"{site}.{name}" in whole:
                array = whole[f"{site}.{name}"]
                kind = "<f4" if name == "extremes" else "<i8"
                found.update(f"{site}.{name} {kind} {list(array.shape)}\n".encode())
                found.update(array.astype(kind).tobytes())
    return found.hexdigest()


def test_bins_are_those_of_the_page():
    drawn = np.random.default_rng(0)
    values = drawn.normal(size=4000) * 2.0 ** drawn.integers(-14, 10, 4000)
    values = np.concatenate([values, [0.0, 2.0**-10, 2.0**7, -(2.0**7), 1.0, -1.125]])
    values = values.astype(np.float32)
    for value, found in zip(values.tolist(), bin_index(values), strict=True):
        mantissa, exponent = np.frexp(abs(value))
        kind = 1 + 8 * (int(exponent) - 1 + 10) + int(2 * mantissa * 8) - 8
        kind = 0 if abs(value) < 2.0**-10 else 136 if abs(value) >= 2.0**7 else kind
        assert found == (136 - kind if value < 0 else 137 + kind)


def example_of_the_page(path):
    """Write the example of the page, from its text, byte by byte."""
    text = PAGE.split("### Example of neurons")[1].split("## Directions")[0]
    header = json.loads(text.split("```json\n")[1].split("```")[0])
    entries, data = {"__metadata__": {"langneurons": json.dumps(header)}}, b""
    for names, kinds, shape, raw in re.findall(
        r"^\| (`[^|]+`) \| ([\w, ]+) \| \[(\d)\] \| (.*?) ?\|$", text, re.M
    ):
        for name, kind in zip(re.findall("`(.+?)`", names), kinds.split(", "), strict=True):
            content = bytes.fromhex(raw.replace("`", ""))
            place = [len(data), len(data) + len(content)]
            entries[name] = {"dtype": kind, "shape": [int(shape)], "data_offsets": place}
            data += content
    start = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(start)) + start + data)
    return header


def test_the_example_of_the_page_is_read(tmp_path):
    header = example_of_the_page(tmp_path / NAME)
    frame, found = read_neurons(tmp_path / NAME)
    assert found.plain() == header
    assert frame.to_dict("list") == {
        "lang": ["en", "en"],
        "layer": [0, 1],
        "neuron": [3, 1],
        "score": [0.5, 0.25],
    }
    neurons = ln.Neurons.load(tmp_path / NAME)
    assert neurons.counts().to_dict() == {"en": 2, "xx": 0}
    assert "revision" not in neurons.metadata


def test_the_keys_of_the_page_are_those_of_the_headers(saved):
    kinds = {"s": "statistics", "n": "neurons", "d": "directions", "a": "adapters"}
    for name, kind in kinds.items():
        own = card_of(saved / name)["langneurons"]
        rows = re.findall(r"^\| `(\w+)` \| .*\| (?:yes|no) \|", PAGE, re.M)
        general = [key for key in rows if key not in ("langneurons", "library_name", "tags")]
        more = re.findall(r"^\| ([a-z, ]+) \| `(\w+)` \|", PAGE, re.M)
        added = [key for kinds, key in more if kind in kinds or kinds == "all but directions"]
        added = [key for key in added if not (key == "d_mlp" and kind == "directions")]
        assert {*general, *added} == set(own), kind


# Round trips --------------------------------------------------------------------------------------


def test_folders_come_back_equal_and_are_the_same_bytes(
    saved, tmp_path, statistics, neurons, directions, model
):
    for name, one in (("s", statistics), ("n", neurons), ("d", directions)):
        back = type(one).from_pretrained(saved / name, model="owner/tiny")
        back.save(tmp_path / name, license="cc0-1.0")
        back.save(tmp_path / name, license="cc0-1.0")  # in place of itself
        files = sorted(path.name for path in (saved / name).iterdir())
        assert files == sorted(path.name for path in (tmp_path / name).iterdir())
        for file in files:
            assert (tmp_path / name / file).read_bytes() == (saved / name / file).read_bytes()
    back = ln.Neurons.load(saved / "n")
    pd.testing.assert_frame_equal(back.frame, neurons.frame)
    assert back.metadata == neurons.metadata
    assert ln.Neurons.from_pretrained(saved / "n", model=model).languages == ["aa", "bb"]


def test_neurons_without_scores_and_without_neurons_come_back(tmp_path, neurons):
    bare = neurons.frame.assign(score=np.nan)[neurons.frame["lang"] == "aa"]
    kept = ln.Neurons(bare[["lang", "layer", "neuron", "score"]], neurons.metadata)
    kept.save(tmp_path / "bare")
    back = ln.Neurons.load(tmp_path / "bare")
    pd.testing.assert_frame_equal(back.frame, kept.frame)
    assert back.counts()["bb"] == 0
    assert "score" not in card_of(tmp_path / "bare")["langneurons"]["columns"]


def test_a_length_that_begins_like_a_pickle_is_none(tmp_path, neurons):
    for size in range(0, 256, 4):
        given = neurons.metadata | {"parameters": json.dumps({"k": "x" * size})}
        path = tmp_path / NAME
        write_neurons(path, neurons.frame, neurons_header(neurons.frame, given, "test"))
        if path.read_bytes()[0] == 0x80:
            assert ln.Neurons.load(path).counts().sum() == len(neurons.frame)
            return
    raise AssertionError("no header of such a length")


def test_without_matplotlib_a_folder_has_no_picture(tmp_path, neurons, monkeypatch, caplog):
    monkeypatch.setattr(shared, "find_spec", lambda name: None)
    neurons.save(tmp_path / "plain")
    assert {one.name for one in (tmp_path / "plain").iterdir()} == {CARD, NAME}
    assert "layers.svg" not in (tmp_path / "plain" / CARD).read_text()
    assert "matplotlib is not installed" in caplog.text
    pd.testing.assert_frame_equal(ln.Neurons.load(tmp_path / "plain").frame, neurons.frame)


def test_a_folder_of_other_files_is_left_alone(tmp_path, neurons, statistics, saved):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files .notes.txt.; name a new one"):
        neurons.save(tmp_path)
    with pytest.raises(InputError, match="a file of this name is there"):
        neurons.save(tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match="holds statistics, not neurons; name a new one"):
        neurons.save(saved / "s")
    with pytest.raises(InputError, match="n.parquet: neurons are written as a folder"):
        neurons.save(tmp_path / "n.parquet")
    # In place of statistics of two languages: the file of the other one is gone.
    shutil.copytree(saved / "s", tmp_path / "s")
    ln.Statistics({"aa": statistics["aa"]}).save(tmp_path / "s")
    assert list(ln.Statistics.load(tmp_path / "s")) == ["aa"]


def test_neurons_that_do_not_name_their_model_are_not_shared(tmp_path, neurons):
    unnamed = {key: neurons.metadata[key] for key in ("languages", "n_layers", "d_mlp")}
    with pytest.raises(InputError, match="do not name their model.*--model"):
        ln.Neurons(neurons.frame, unnamed).save(tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_statistics_that_neurons_were_not_selected_by_are_refused(model, saved, statistics):
    neurons = ln.Neurons.load(saved / "n")
    assert neurons.control(statistics=ln.Statistics.load(saved / "s")).unique
    with pytest.warns(UserWarning, match="few"):
        other = ln.collect(model, TEXTS | {"bb": "z y x w " * 80}, block_size=64)
    with pytest.raises(ValueError, match="statistics of bb are not those.*digests differ"):
        neurons.control(statistics=other)
    foreign = ln.LanguageModel(model.model, model.tokenizer, IDENTITY | {"model": "x"})
    with pytest.warns(UserWarning, match="few"):
        other = ln.collect(foreign, TEXTS, block_size=64)
    with pytest.raises(
        ValueError, match="neurons are of model 'owner/tiny', the statistics of 'x'"
    ):
        neurons.control(statistics=other)


def test_the_digest_follows_the_content_alone(statistics, saved, tmp_path, model):
    one = statistics["aa"]
    read = ln.Statistics.load(saved / "s")["aa"]
    assert one.digest == read.digest and "digest" not in read.header
    changed = dict(one.arrays) | {"act.positive": one.arrays["act.positive"] + 1}
    assert type(one)(changed, one.header).digest != one.digest
    assert type(one)(dict(one.arrays), one.header | {"tokens": 1}).digest != one.digest
    both = statistics.merged(
        ln.Statistics({"cc": type(one)(one.arrays, one.header | {"lang": "cc"})})
    )
    assert both["cc"].digest != both["aa"].digest == one.digest


# What is refused ----------------------------------------------------------------------------------


def rewritten(folder, name, header=None, arrays=None, drop=(), card=True):
    """Write a tensor file anew with changes, and its digest and header into the card."""
    own, whole = by_the_page(folder / name)
    own |= header or {}
    whole |= arrays or {}
    for key in drop:
        own.pop(key, None)
        whole.pop(key, None)
    write_tensors(folder / name, whole, own)
    keys = card_of(folder)
    digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    files = keys["langneurons"]["files"] | {name: digest}
    keys["langneurons"] = (own if card else keys["langneurons"]) | {"files": files}
    (folder / CARD).write_text(f"---\n{yaml.safe_dump(keys)}---\n")


def refused(read, words):
    with pytest.raises(ValueError, match=f"(?s){words}"):
        read()


INT, FLOAT = np.int32, np.float64
WRONG_NEURONS = {
    "format": ({"format": "pickle"}, {}, (), "format is 'pickle'.*reads 'langneurons' only"),
    "version": ({"version": 2}, {}, (), "version 2 of the format.*reads version 1.*langneurons 0"),
    "kind": ({"kind": "neuron"}, {}, (), "kind 'neuron' is not known.*Did you mean 'neurons'"),
    "another kind": ({"kind": "directions"}, {}, (), "it holds directions, not neurons"),
    "missing key": ({}, {}, ("method",), "method: missing"),
    "unknown key": ({"metod": "x"}, {}, (), "metod: unknown key.*'method'"),
    "wrong type": ({"n_layers": "two"}, {}, (), "n_layers: expected a whole number"),
    "languages twice": ({"languages": ["aa", "aa"]}, {}, (), "aa listed more than once"),
    "tokens of others": ({"tokens": {"aa": 1}}, {}, (), "tokens.*of aa, but languages are aa, bb"),
    "language without arrays": (
        {
            "languages": ["aa", "bb", "cc"],
            "tokens": None,
            "corpora": None,
            "statistics": None,
        },
        {},
        (),
        "names arrays that are missing: cc.layer, cc.neuron",
    ),
    "arrays without language": (
        {},
        {"cc.layer": np.zeros(0, INT)},
        (),
        "arrays that the header does not name: cc.layer",
    ),
    "type": ({}, {"aa.layer": np.zeros(8, np.int64)}, (), "aa.layer is of type int64, not int32"),
    "shape": ({}, {"aa.layer": np.zeros(3, INT)}, (), "aa: arrays of different shapes"),
    "outside": ({"d_mlp": 2}, {}, (), r"aa: neuron \d+ of layer \d is outside the 2 layers x 2"),
    "deeper": ({"n_layers": 1}, {}, (), "is outside the 1 layers x 48 neurons of the model"),
    "twice": ({}, {f"aa.{k}": np.zeros(8, INT) for k in ("layer", "neuron")}, (), "listed twice"),
    "order": (
        {},
        {"aa.neuron": np.arange(8, 0, -1, INT), "aa.layer": np.zeros(8, INT)},
        (),
        "earl",
    ),
    "score": ({}, {"aa.score": np.full(8, np.inf, FLOAT)}, (), "the score of neuron .* is inf"),
}


@pytest.mark.parametrize("case", WRONG_NEURONS)
def test_neurons_that_cannot_be_are_refused(folders, case):
    header, arrays, drop, words = WRONG_NEURONS[case]
    rewritten(folders / "n", NAME, header, arrays, drop)
    refused(lambda: ln.Neurons.load(folders / "n"), words)
    refused(lambda: ln.Neurons.load(folders / "n" / NAME), words)


def damages(path):
    """Yield what is done to a file, and what is then said."""
    whole = path.read_bytes()
    yield b"", "the file is empty"
    yield whole[: len(whole) // 2], "cut short"
    yield whole[:40], "cut short"
    yield whole[:-1], "cut short: "
    yield b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"
    yield b"PK\x03\x04" + bytes(100), "a pickle or a file of torch.save"
    yield b"\x80\x04" + bytes(100), "a pickle or a file of torch.save"
    yield b"hello", "not a safetensors file"


@pytest.mark.parametrize("name, file", [("n", NAME), ("s", "aa.safetensors")])
def test_damaged_files_are_refused_with_the_reason(folders, name, file):
    kind = {"n": ln.Neurons, "s": ln.Statistics}[name]
    path = folders / name / file
    for content, words in list(damages(path)):
        path.write_bytes(content)
        refused(lambda: kind.load(folders / name), words)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        kind.load(folders / name)


def test_a_file_of_another_digest_or_header_than_its_card_is_refused(folders, neurons):
    path = folders / "n" / NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused(lambda: ln.Neurons.load(folders / "n"), "its SHA-256 is .*; the card says")
    shutil.copy(folders / "d" / CARD, folders / "n" / CARD)
    refused(lambda: ln.Neurons.load(folders / "n"), "it holds directions, not neurons")


def test_a_card_that_says_another_thing_than_its_file_is_refused(folders):
    rewritten(folders / "n", NAME, {"method": "plnd"}, card=False)
    refused(
        lambda: ln.Neurons.load(folders / "n"), "method is 'plnd' in the file and 'lape' in the"
    )


@pytest.mark.parametrize(
    "text, words",
    [
        ("hello", "does not begin with a YAML header"),
        ("---\nlicense: mit\n---\n", "no key `langneurons`"),
        ("---\na: b: c\n---\n", "not valid YAML"),
        ("---\nlangneurons: {format: x}\n---\n", "format is 'x'"),
        ("version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    ],
)
def test_cards_that_are_none_are_refused(folders, text, words):
    (folders / "n" / CARD).write_text(text)
    refused(lambda: ln.Neurons.load(folders / "n"), words)


def test_a_folder_without_a_card_is_told_what_it_holds(folders):
    (folders / "n" / CARD).unlink()
    refused(lambda: ln.Neurons.load(folders / "n"), "no README.md in it.*it holds layers.svg, neur")


def test_directions_that_cannot_be_are_refused(folders, saved, directions):
    file = "directions.safetensors"
    for header, arrays, words in (
        ({"d_model": 31}, {}, r"shape \(2, 32\); the header says \(2, 31\)"),
        ({}, {"aa": np.full((2, 32), np.nan, np.float32)}, "aa are not finite"),
        ({}, {"aa": np.zeros((2, 32))}, "aa is of type float64, not float32"),
        (
            {"site": "mlp"},
            {"aa": np.zeros((2, 32), np.float32)},
            "'mlp'.*residual_in, residual_out",
        ),
    ):
        rewritten(folders / "d", file, header, arrays)
        refused(lambda: ln.Directions.load(folders / "d"), words)
        shutil.rmtree(folders / "d")
        shutil.copytree(saved / "d", folders / "d")
    plain = directions.arrays["aa"]
    for arrays, more, words in (
        ({}, {}, "arrays is empty"),
        ({"aa": [1.0]}, {}, "aa is list"),
        ({"aa": plain.astype(np.float64)}, {}, "float64, not float32"),
        ({"aa": plain, "bb": plain[:1]}, {}, "bb have the shape"),
        ({"aa": plain}, {"site": "act"}, "residual_in"),
        ({"aa": plain}, {"metadata": {"revison": "x"}}, "'revison' is not known; known: revision"),
    ):
        given = {"model": "m", "site": "residual_in", "method": "x"} | more
        refused(lambda given=given, arrays=arrays: ln.Directions(arrays, **given), words)


def test_statistics_that_do_not_belong_together_are_refused(folders, saved):
    name = "aa.safetensors"
    for header, words in (
        ({"model": "other"}, "disagree on model"),
        ({"tokenizer_hash": "x"}, "disagree on tokenizer_hash"),
        ({"block_size": 32}, "disagree on block_size"),
        ({"tokens": 10**6}, "tokens is .*1000000.* in the file and|tokens is"),
        ({"schema": 1}, "schema 1, expected 2"),
        ({"lang": "cc"}, "lang is 'cc', expected 'aa'"),
    ):
        rewritten(folders / "s", name, header, card=False)
        refused(lambda: ln.Statistics.load(folders / "s"), words)
        shutil.copy(saved / "s" / name, folders / "s" / name)
    own, arrays = by_the_page(folders / "s" / name)
    smaller = {key: array for key, array in arrays.items() if key != "act.extremes"}
    save_file(smaller, folders / "s" / name, {"langneurons": json.dumps(own)})
    keys = card_of(folders / "s")
    keys["langneurons"]["files"][name] = hashlib.sha256(
        (folders / "s" / name).read_bytes()
    ).hexdigest()
    (folders / "s" / CARD).write_text(f"---\n{yaml.safe_dump(keys)}---\n")
    refused(lambda: ln.Statistics.load(folders / "s"), "extremes of site act missing")


def test_statistics_lack_or_have_languages_that_the_card_does_not(folders):
    keys = card_of(folders / "s")
    del keys["langneurons"]["files"]["bb.safetensors"]
    (folders / "s" / CARD).write_text(f"---\n{yaml.safe_dump(keys)}---\n")
    refused(
        lambda: ln.Statistics.load(folders / "s"), "names the languages aa, bb; there are files"
    )


# The command line ---------------------------------------------------------------------------------


def test_check_says_what_a_folder_is_or_what_is_wrong(folders, capsys, neurons, tmp_path):
    counts = neurons.counts()
    for name, words in (
        (
            "n",
            ["neurons, whole", "owner/tiny at 777", "2 layers x 48", "lape", f"aa {counts['aa']}"],
        ),
        ("s", ["statistics, whole", "aa 639, bb 639"]),
        ("d", ["directions, whole", "2 layers x 32", "aa 2, bb 2"]),
        (f"n/{NAME}", ["neurons, whole"]),
        ("s/aa.safetensors", ["statistics, whole", "aa 639"]),
    ):
        assert main(["check", str(folders / name)]) == 0
        shown = capsys.readouterr().out
        assert all(word in shown for word in words), shown
    neurons.to_parquet(tmp_path / "t.parquet")
    assert main(["check", str(tmp_path / "t.parquet"), "config/config.yaml"]) == 0
    shown = capsys.readouterr().out
    assert f"aa {counts['aa']}" in shown and "demo: gemma3-270m" in shown
    path = folders / "s" / "aa.safetensors"
    header, arrays = by_the_page(path)
    save_file(arrays, path, {"langneurons": json.dumps(header | {"digest": "0" * 64})})
    assert main(["check", str(path)]) == 1
    assert "its digest is" in capsys.readouterr().err
    assert main(["check", str(folders / "s")]) == 1
    assert "its SHA-256 is" in capsys.readouterr().err


def test_neurons_are_converted_between_all_forms(saved, tmp_path, neurons, capsys):
    columns = ["lang", "layer", "neuron"]
    convert(saved / "n", tmp_path / "a.parquet")
    convert(tmp_path / "a.parquet", tmp_path / "b")
    assert (tmp_path / "b" / NAME).read_bytes() == (saved / "n" / NAME).read_bytes()
    convert(saved / "n" / NAME, tmp_path / "c.pth")
    given = {"languages": "aa,bb", "neurons_per_layer": 48}
    with pytest.raises(InputError, match="do not name their model"):
        convert(tmp_path / "c.pth", tmp_path / "d", **given)
    convert(tmp_path / "c.pth", tmp_path / "d", **given, model="owner/tiny")
    back = ln.Neurons.from_pretrained(tmp_path / "d", model="owner/tiny")
    pd.testing.assert_frame_equal(back.frame[columns], neurons.frame[columns])
    assert back.metadata["method"] == "imported"
    with pytest.raises(InputError, match="the neurons in .* are of 'owner/tiny'"):
        convert(saved / "n", tmp_path / "e.parquet", model="owner/other")


# As a selection -----------------------------------------------------------------------------------


def test_shared_neurons_are_a_selection(saved, statistics, neurons, tmp_path):
    whole = dict(statistics)
    found = run_selection({"method": "published", "path": str(saved / "n")}, whole)
    columns = ["lang", "layer", "neuron", "score"]
    pd.testing.assert_frame_equal(found.frame[columns], neurons.frame[columns])
    assert "path" not in found.metadata["parameters"]
    pd.testing.assert_frame_equal(
        ln.select(statistics, "published", path=str(saved / "n" / NAME)).frame, found.frame
    )

    def told(header, words, **more):
        changed = {lang: type(one)(one.arrays, one.header | header) for lang, one in whole.items()}
        given = {"method": "published", "path": str(saved / "n")} | more
        refused(lambda: run_selection(given, changed), words)

    told({"model": "mine"}, "neurons of model 'owner/tiny'; here it is 'mine'.*as `model`")
    told({"revision": "8"}, "neurons of revision '777.*; here it is '8'")
    told({"tokenizer_hash": "x"}, "neurons of tokenizer_hash")
    told({"lang": "cc"} | {"n_layers": 3}, "2 layers x 48 neurons; the model has 3 x 48")
    given = {"method": "published", "path": str(saved / "n"), "model": "owner/tiny"}
    local = {
        lang: type(one)(one.arrays, one.header | {"model": "mine", "revision": "0"})
        for lang, one in whole.items()
    }
    assert run_selection(given, local).unique == neurons.unique
    lacking = {"aa": whole["aa"], "cc": type(whole["bb"])(whole["bb"].arrays, whole["bb"].header)}
    refused(
        lambda: run_selection({"method": "published", "path": str(saved / "n")}, lacking), "no ne"
    )


HUB = {"repo": "org/masks", "revision": "1" * 40}


@pytest.mark.parametrize(
    "given, words",
    [
        ({}, "either `path` or `repo`"),
        ({"path": "n"} | HUB, "either `path` or `repo`"),
        ({"repo": "org/masks"}, "revision.*missing"),
        ({"repo": "masks", "revision": "1" * 40}, "repo"),
        ({"repo": "org/masks", "revision": "main"}, "revision"),
        ({"path": "n", "revision": "1" * 40}, "revision.*belongs to `repo`"),
        ({"path": "n", "file": "m.pth"}, "file.*belongs to `repo`"),
        (HUB | {"order": "tang2024"}, "order: shared neurons name their languages"),
        (HUB | {"file": "m.pth"}, "either `order` or `languages`"),
        ({"path": "m.pth"}, "either `order` or `languages`"),
        (HUB | {"file": "{lang}.pth", "order": "tang2024"}, "legal: {model}"),
        (HUB | {"file": "m.pth", "order": "tang2024", "model": "m"}, "does not name its model"),
    ],
)
def test_published_neurons_that_are_not_described_are_refused(given, words):
    with pytest.raises(ValueError, match=words):
        run_selection({"method": "published"} | given, {})
