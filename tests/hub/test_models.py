"""Models from the hub: which files come, at which commit, and what a bad connection costs."""

import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hub.server import STRANGER, Fault
from tiny import tiny_model, tiny_tokenizer

from langneurons.base.errors import InputError
from langneurons.models import hub as client
from langneurons.models import load as loading
from langneurons.models import prepare
from langneurons.models.settings import ModelEntry

COMMIT, LATER = "a" * 40, "b" * 40
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Return the files of a tiny model."""
    folder = tmp_path_factory.mktemp("weights")
    tiny_model("llama").save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def entry(revision=COMMIT, repo="owner/name") -> ModelEntry:
    source = {"kind": "hub", "repo": repo, "revision": revision}
    return ModelEntry(source=source, dtype="float32")


def test_one_copy_of_the_weights_comes(hub, files, tmp_path):
    others = dict.fromkeys(("consolidated.safetensors", "pytorch_model.bin", "onnx/x.json"), b"{}")
    hub.add(
        "models", "owner/name", files | others | {"README.md": "r", ".gitattributes": ""}, COMMIT
    )
    out = tmp_path / "out"
    out.mkdir()
    (out / "model-00001-of-00002.safetensors").write_bytes(b"stale")
    manifest = prepare.prepare_model(entry(), out)
    assert set(manifest["files"]) == set(files) and not hub.asked("consolidated|onnx|README")
    assert not (out / "model-00001-of-00002.safetensors").exists()
    assert (manifest["path"], manifest["revision"]) == (".", COMMIT)
    assert {path.name for path in out.iterdir()} == {*files, "manifest.json", client.STAMPS}
    assert "hf_" not in (out / "manifest.json").read_text()
    assert loading.identity(entry(), manifest)["model"] == "owner/name"
    loading.load_model(entry(), out / "manifest.json", "cpu")
    # What is there is not fetched again; what somebody changed is.
    hub.quiet()
    assert prepare.prepare_model(entry(), out) == manifest and not hub.asked("/resolve/")
    (out / "config.json").write_text("{}")
    assert prepare.prepare_model(entry(), out) == manifest
    assert [path.rsplit("/")[-1] for path in hub.asked("/resolve/")] == ["config.json"]


def test_indices_of_weights_that_are_not_used_do_not_come():
    names = ["config.json", "flax_model.msgpack.index.json", "model.safetensors.index.json"]
    names += ["pytorch_model.bin.index.json", "pytorch_model-00001-of-00001.bin"]
    small, weights = prepare._needed(names)
    assert small == ["config.json", "pytorch_model.bin.index.json"]
    assert weights == ["pytorch_model-00001-of-00001.bin"]
    shard = "model-00001-of-00001.safetensors"
    assert prepare._needed([*names, shard]) == (["config.json", names[2]], [shard])


def test_a_family_is_refused_before_its_weights_come(hub, tmp_path):
    weights = {f"pytorch_model-0000{i}-of-00002.bin": b"w" for i in (1, 2)}
    config = json.dumps({"model_type": "phi3"})
    hub.add("models", "owner/phi", weights | {"config.json": config}, COMMIT)
    with pytest.raises(ValueError, match="'phi3' fuses gate and up"):
        prepare.prepare_model(entry(repo="owner/phi"), tmp_path / "out")
    assert not hub.asked("bin")


def test_the_newest_commit_is_looked_up_once_and_kept(hub, files, tmp_path):
    hub.add("models", "owner/name", files, COMMIT)
    newest, out = entry("newest"), tmp_path / "out"
    manifest = prepare.prepare_model(newest, out)
    assert manifest["revision"] == COMMIT and manifest["source"]["revision"] == "newest"
    # To every result it is the model of that commit, pinned or not.
    pinned = prepare.prepare_model(entry(), tmp_path / "pinned")
    assert loading.identity(newest, manifest) == loading.identity(entry(), pinned)
    # The hub goes on; Snakemake removes the manifest before it makes it again.
    hub.add("models", "owner/name", files, LATER)
    hub.add("models", "owner/other", files, LATER)
    (out / "manifest.json").unlink()
    hub.quiet()
    assert prepare.prepare_model(newest, out) == manifest
    assert not hub.asked("/api/models/owner/name$")
    # Another repository, or a fresh folder, is looked up.
    again = prepare.prepare_model(entry("newest", "owner/other"), out)
    assert again["revision"] == LATER
    assert prepare.prepare_model(newest, tmp_path / "fresh")["revision"] == LATER


@pytest.mark.parametrize("kind", (429, 500, 502, 503, 504, "reset", "cut"))
@pytest.mark.parametrize(
    "where", ("/api/models/[^/]*/[^/]*/revision", "paths-info", "resolve/.*config", "/cdn/")
)
def test_what_passes_is_tried_again(hub, files, tmp_path, kind, where):
    hub.add("models", "owner/name", files, COMMIT)
    hub.faults = [Fault(kind, where, times=2)]
    manifest = prepare.prepare_model(entry(), tmp_path / "out")
    assert hub.faults[0].times == 0
    for name in manifest["files"]:
        assert (tmp_path / "out" / name).read_bytes() == files[name]


def test_the_hub_is_given_the_time_that_it_asks_for(hub, files, tmp_path, monkeypatch, caplog):
    waits = []
    monkeypatch.setattr(client.time, "sleep", waits.append)
    hub.add("models", "owner/name", files, COMMIT)
    hub.faults = [Fault(429, "revision", retry_after="7"), Fault(503, "paths-info")]
    with caplog.at_level(logging.WARNING):
        prepare.prepare_model(entry(), tmp_path / "out")
    assert waits == [7.0, 0.0]
    assert "model owner/name at aaaa" in caplog.text and "the hub answers 429" in caplog.text
    assert client._asked({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 50))
    assert 45 < client._asked({"Retry-After": later}) <= 50
    hub.faults = [Fault(429, "revision", retry_after="5000")]
    with pytest.raises(InputError, match="cannot be reached or does not answer .*answers 429"):
        prepare.prepare_model(entry(), tmp_path / "out")


def test_many_faults_of_every_kind(hub, files, tmp_path):
    shards = {f"extra{i}.json": json.dumps({"n": i}) for i in range(20)}
    hub.add("models", "owner/many", files | shards, COMMIT)
    hub.chance = {429: 0.1, 503: 0.1, "reset": 0.1, "cut": 0.1}
    manifest = prepare.prepare_model(entry(repo="owner/many"), tmp_path / "out")
    assert len(manifest["files"]) == len(files) + 20
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == files[WEIGHTS]


def test_half_a_file_is_continued_and_no_half_is_left(hub, files, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "CHUNK", 1 << 12)
    hub.add("models", "owner/name", files, COMMIT)
    checksum = hashlib.sha256(files[WEIGHTS]).hexdigest()
    hub.faults = [Fault("cut", checksum), Fault(404, checksum)]
    with pytest.raises(InputError):
        prepare.prepare_model(entry(), tmp_path / "out")
    half = tmp_path / "out" / client.PARTS / f"{checksum}.{WEIGHTS}.part"
    size = half.stat().st_size
    assert 0 < size < len(files[WEIGHTS])
    (tmp_path / "out" / client.PARTS / "0000.part").write_bytes(b"of another commit")
    hub.quiet()
    prepare.prepare_model(entry(), tmp_path / "out")
    ranges = [ranged for _, path, ranged in hub.requests if "/cdn/" in path and ranged]
    assert f"bytes={size}-" in ranges
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == files[WEIGHTS]
    assert not (tmp_path / "out" / client.PARTS).exists()


def test_files_that_hold_the_same_come_beside_each_other(hub, tmp_path):
    data = os.urandom(1 << 20)
    names = [f"same{number}.bin" for number in range(12)]
    hub.add("models", "owner/same", dict.fromkeys(names, data), COMMIT)
    client.download("owner/same", COMMIT, [names], tmp_path)
    assert all((tmp_path / name).read_bytes() == data for name in names)


KILLED = """
import sys
from pathlib import Path
from langneurons.models import hub
hub.CHUNK = 1 << 16
import httpx2
def slow(self, size=None, real=httpx2.Response.iter_bytes):
    for number, chunk in enumerate(real(self, size)):
        yield chunk
        print(number, flush=True)
        import time; time.sleep(0.05)
httpx2.Response.iter_bytes = slow
hub.download("owner/large", "a" * 40, [["pytorch_model.bin"]], Path(sys.argv[1]))
"""


def test_a_killed_download_goes_on_in_a_new_process(hub, tmp_path):
    data = os.urandom(1 << 22)
    hub.add("models", "owner/large", {"pytorch_model.bin": data}, COMMIT)
    out = tmp_path / "out"
    job = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out)], stdout=subprocess.PIPE, text=True
    )
    for line in job.stdout:
        if line.strip() == "20":
            break
    job.send_signal(signal.SIGKILL)
    job.wait()
    (half,) = (out / client.PARTS).iterdir()
    done = half.stat().st_size
    assert 20 << 16 <= done < len(data)
    hub.quiet()
    client.download("owner/large", COMMIT, [["pytorch_model.bin"]], out)
    assert (out / "pytorch_model.bin").read_bytes() == data
    assert hub.sent < len(data) - done + 10_000
    assert sorted(path.name for path in out.iterdir()) == [client.STAMPS, "pytorch_model.bin"]


def test_files_of_equal_content_are_fetched_side_by_side(hub, tmp_path):
    names = [f"params{number}.json" for number in range(12)]
    hub.add("models", "owner/equal", dict.fromkeys(names, b'{"dim": 32}'), COMMIT)
    client.download("owner/equal", COMMIT, [names], tmp_path)
    assert {(tmp_path / name).read_bytes() for name in names} == {b'{"dim": 32}'}


def test_bytes_that_are_not_those_of_the_commit_are_fetched_again(hub, tmp_path):
    hub.add("models", "owner/large", {"pytorch_model.bin": b"right" * 1000}, COMMIT)
    out = tmp_path / "out"
    (out / client.PARTS).mkdir(parents=True)
    checksum = hashlib.sha256(b"right" * 1000).hexdigest()
    (out / client.PARTS / f"{checksum}.pytorch_model.bin.part").write_bytes(b"wrong" * 900)
    client.download("owner/large", COMMIT, [["pytorch_model.bin"]], out)
    assert (out / "pytorch_model.bin").read_bytes() == b"right" * 1000


@pytest.mark.parametrize(
    "token, revision, repo, words",
    [
        (
            "hf_reader",
            LATER,
            "owner/gated",
            "no such commit.*: model owner/gated at bb",
        ),
        ("hf_reader", COMMIT, "owner/none", "has no model owner/none at aa.*HF_TOKEN"),
        (STRANGER, COMMIT, "owner/gated", "owner/gated at aa.* asks for consent to its terms"),
        (None, COMMIT, "owner/gated", "asks for consent to its terms.*HF_TOKEN"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(
    hub, files, tmp_path, monkeypatch, token, revision, repo, words
):
    hub.add("models", "owner/gated", files, COMMIT, gated="manual")
    monkeypatch.delenv("HF_TOKEN")
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(InputError, match=words) as caught:
        prepare.prepare_model(entry(revision, repo), tmp_path / "out")
    assert "\n" not in str(caught.value) and "Signature" not in str(caught.value)


DOWN = """
import sys
from pathlib import Path
from langneurons.models import hub
from langneurons.models import prepare
from langneurons.models.settings import ModelEntry
hub.WAITS = (0.0,) * 9
source = {"kind": "hub", "repo": "owner/name", "revision": "a" * 40}
try:
    prepare.prepare_model(ModelEntry(source=source), Path(sys.argv[1]))
except hub.InputError as error:
    print(error)
"""


def test_a_hub_that_is_down_is_named_with_what_to_do(tmp_path):
    environment = os.environ | {"HF_ENDPOINT": "http://127.0.0.1:9"}
    command = [sys.executable, "-c", DOWN, str(tmp_path / "out")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    assert line.startswith(f"model owner/name at {COMMIT}: the hub at http://127.0.0.1:9 cannot be")
    for word in ("HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN", "proxy", "is kept"):
        assert word in line


def test_no_signature_stands_in_a_log(hub, files, tmp_path):
    script = Path(tmp_path / "job.py")
    script.write_text(
        "import types, sys\n"
        "from pathlib import Path\n"
        "from langneurons.models import hub\n"
        "from langneurons.models import prepare\n"
        "from langneurons.models.settings import ModelEntry\n"
        "from langneurons.runtime.job import start\n"
        "hub.WAITS = (0.0,) * 9\n"
        "job = types.SimpleNamespace(log=['job.log'], resources={}, threads=1, params={})\n"
        "start(job, offline=False)\n"
        f"source = {{'kind': 'hub', 'repo': 'owner/name', 'revision': '{COMMIT}'}}\n"
        "prepare.prepare_model(ModelEntry(source=source), Path('out'))\n"
        "raise RuntimeError('http://cdn/x?Signature=secret')\n"
    )
    hub.add("models", "owner/name", files, COMMIT)
    hub.faults = [Fault("cut", "/cdn/"), Fault(503, "/cdn/"), Fault("reset", "/cdn/")]
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True
    )
    shown = done.stdout + done.stderr + (tmp_path / "job.log").read_text()
    assert "prepared owner/name" in shown and "attempt 2 of" in shown
    assert "Signature" not in shown and "secret" not in shown and "hf_reader" not in shown
    assert "RuntimeError: http://cdn/x?..." in shown
