"""What docs/adding.md shows, added to a copy of the package or of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_workflow import Checkout

from langneurons.base.io import read_parquet
from langneurons.selection.table import NeuronTable

ROOT = Path(__file__).parent.parent
ADDING = (ROOT / "docs" / "adding.md").read_text(encoding="utf-8")


def example(heading):
    """Return the first Python block below a heading."""
    section = ADDING.split(f"\n{heading}\n")[1]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)


@pytest.fixture
def package(tmp_path):
    """Return a copy of the package's source, and a function that runs a script on it."""
    shutil.copytree(ROOT / "src" / "langneurons", tmp_path / "langneurons")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT / 'tests' / 'support'}"}

    def run(script):
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return tmp_path / "langneurons", run


CONFIG = """
from langneurons.config import build
config = build({
    "name": "mine",
    "models": {"tiny": {"source": {"kind": "local", "path": "tiny"}}},
    "language_sets": {"two": ["en", "vi"]},
    "corpus": {"source": {"kind": "mini"}},
    "selections": {"mine": SELECTION},
    "interventions": {"mine": {"operation": OPERATION, "value": 2.0}},
})
"""


def test_the_documented_method_is_one_module(package):
    folder, run = package
    code = example("## A selection method")
    path = re.match(r"# src/langneurons/(\S+)", code).group(1)
    (folder / path).write_text(code, encoding="utf-8")
    config = CONFIG.replace("SELECTION", '{"method": "top_mean", "rate": 0.25}')
    script = (
        config.replace("OPERATION", '"set"')
        + """
import numpy as np

class Measured:
    def __init__(self, mean):
        self.values = np.array(mean, float)
    def mean(self, site):
        assert site == "act"
        return self.values

found = config.selections["mine"].select({
    "en": Measured([[0, 3, 1, 2], [9, 0, 0, 0]]), "vi": Measured([[5, 0, 0, 0], [0, 0, 6, 0]])
})
print(found[["lang", "layer", "neuron", "score"]].values.tolist())
"""
    )
    assert run(script).strip() == str(
        [["en", 0, 1, 3.0], ["en", 1, 0, 9.0], ["vi", 0, 0, 5.0], ["vi", 1, 2, 6.0]]
    )


def test_the_documented_operation_is_one_function(package):
    folder, run = package
    with (folder / "interventions/operations.py").open("a", encoding="utf-8") as file:
        file.write("\n\n" + example("### An operation"))
    script = CONFIG.replace("SELECTION", '{"method": "lape"}').replace("OPERATION", '"halfway"')
    script += """
import numpy as np, torch
from tiny import tiny_model
from langneurons.interventions.plan import Plan
from langneurons.interventions.plan import Write
from langneurons.interventions.apply import applied
from langneurons.interventions.apply import hooked
from langneurons.interventions.plan import PerRequest
from langneurons.models.language_model import LanguageModel
(step,) = config.interventions["mine"].steps
model = tiny_model("llama")
lm, index = LanguageModel(model), np.array([1, 7])
sites = lm.sites
plan = Plan("mine", [Write(0, "act", step.operation, index, np.full(2, step.value))])
seen = {}
sites.down[0].register_forward_pre_hook(lambda _m, inputs: seen.update(given=inputs[0].clone()))
layer = sites.act[0]
tokens = torch.arange(4, 10)[None]
kept = layer.forward
layer.forward = lambda x: seen.setdefault("before", []).append(kept(x)) or kept(x)
with applied(lm, plan):
    model(input_ids=tokens, use_cache=False)
alone = seen["given"]
with hooked(lm, PerRequest([None, plan], [1, 0])) as running:
    every = torch.ones(2, 6, dtype=torch.bool)
    running.announce(every, every, torch.tensor([1, 0]))
    model(input_ids=tokens.expand(2, -1), use_cache=False)
rows = seen["given"]
model(input_ids=tokens, use_cache=False)
plain, before = seen["given"], seen["before"][0]
# product = act * up; up = plain / act where nothing was written.
ratio = (alone / plain)[..., index]
expected = ((before + 2.0) / 2 / before)[..., index]
torch.testing.assert_close(ratio, expected, rtol=1e-4, atol=1e-4)
torch.testing.assert_close(rows, torch.cat([alone, plain]))
print("halfway" in step.model_json_schema()["properties"]["operation"]["enum"])
"""
    assert run(script).strip() == "True"


def test_the_documented_metric_is_one_module(package):
    folder, run = package
    code = example("## A metric")
    path = re.match(r"# src/langneurons/(\S+)", code).group(1)
    (folder / path).write_text(code, encoding="utf-8")
    script = """
import json
from langneurons.base.shipped import TASK_DEFINITIONS
from langneurons.evaluation.metrics import METRICS
from langneurons.evaluation.metrics.metric import Answer
from langneurons.evaluation.definition import load_task
from pathlib import Path
text = (Path(TASKS) / "xquad.yaml").read_text().replace("[exact_match, f1]", "[f1, length_ratio]")
assert "length_ratio" in text
Path("mine.yaml").write_text(text)
task = load_task("mine.yaml")
print(json.dumps(METRICS[task.metrics[1]].of_item(Answer("four", ("eightish",)))))
"""
    script = script.replace("TASKS", repr(str(ROOT / "config" / "tasks")))
    assert run(script).strip() == '{"length_ratio": 0.5}'


def test_the_documented_family_is_one_entry(package):
    folder, run = package
    code = example("### Families")
    path = re.match(r"# src/langneurons/(\S+), in FAMILIES\n", code).group(1)
    file = folder / path
    text = file.read_text(encoding="utf-8")
    entry = code.split("\n", 1)[1]
    assert "olmo3" not in text
    file.write_text(text.replace("FAMILIES = {\n", "FAMILIES = {\n" + entry), encoding="utf-8")
    script = """
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from langneurons.models.families import FAMILIES
from langneurons.models.sites import MlpSites
sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "vocab_size": 50}
heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
config = AutoConfig.for_model("olmo3", **sizes, **heads, pad_token_id=0)
model = AutoModelForCausalLM.from_config(config).eval()
sites, seen = MlpSites(model), {}
sites.act[1].register_forward_hook(lambda _m, inputs, output: seen.update(a=output))
sites.down[1].register_forward_pre_hook(lambda _m, inputs: seen.update(product=inputs[0]))
sites.up[1].register_forward_hook(lambda _m, _i, output: seen.update(up=output))
model(input_ids=torch.arange(5)[None])
torch.testing.assert_close(seen["a"] * seen["up"], seen["product"])
modules = [name for name, one in model.named_modules() if type(one) is torch.nn.Linear]
linear = {name.split(".")[-1] for name in modules}
print(sites.n_layers, sites.d_mlp, linear == set(FAMILIES["olmo3"].linear.split()))
"""
    assert run(script).strip() == "2 24 True"


def test_the_documented_task_is_one_file(package, tmp_path):
    _, run = package
    section = ADDING.split("\n## A task\n")[1]
    blocks = re.findall(r"```yaml\n(.*?)```", section, re.DOTALL)
    definition, entry = blocks[0], blocks[1]
    path = re.match(r"# (\S+)", definition).group(1)
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(definition, encoding="utf-8")
    (tmp_path / "entry.yaml").write_text(entry, encoding="utf-8")
    (tmp_path / "proverbs").mkdir()
    row = '{"start": "Still waters run ", "right": "deep", "wrong": "fast"}'
    for code in ("en", "jp"):
        (tmp_path / f"proverbs/{code}.jsonl").write_text(row, encoding="utf-8")
    script = CONFIG.replace("SELECTION", '{"method": "lape"}').replace("OPERATION", '"set"')
    script = script.replace("config = build({", "config = build(TASK | {")
    script = (
        """
from pathlib import Path
from langneurons.base.yaml import parse_yaml
TASK = parse_yaml(Path("entry.yaml").read_text(encoding="utf-8"))
TASK["tasks"]["proverbs"]["interventions"] = ["mine"]
"""
        + script.replace('["en", "vi"]', '["en", "ja"]')
        + """
from langneurons.evaluation.definition import load_task
from langneurons.evaluation.examples import build as built
task = load_task(config.tasks["proverbs"].definition)
(example,) = built([{"start": "Still waters run ", "right": "deep", "wrong": "fast"}], task, "en")
print(repr(example.context), example.choices, example.label)
"""
    )
    assert run(script).strip() == "'Saying: Still waters run' ('deep', 'fast') 0"


def blocks(heading):
    """Return, by the file and place that its first line names, every Python block of a section."""
    section = ADDING.split(f"\n{heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"```python\n# ([^\n]+)\n(.*?)```", section, re.DOTALL)
    return dict(found)


def before(path, mark, text):
    """Put a text before the first line that begins with a mark."""
    content = path.read_text(encoding="utf-8")
    assert content.count(f"\n{mark}") == 1, (path, mark)
    path.write_text(content.replace(f"\n{mark}", f"\n{text}{mark}"), encoding="utf-8")


def test_the_documented_figure_is_two_edits(package):
    folder, run = package
    entry, function = blocks("## A figure kind").items()
    assert entry[0] == "src/langneurons/reporting/kinds.py, in KINDS"
    before(folder / "reporting/kinds.py", '    "overlap": Kind(', entry[1])
    assert function[0] == "src/langneurons/reporting/figures/neurons.py"
    with (folder / "reporting/figures/neurons.py").open("a", encoding="utf-8") as file:
        file.write("\n\n" + function[1])
    config = CONFIG.replace("SELECTION", '{"method": "lape"}').replace("OPERATION", '"set"')
    script = (
        config
        + """
from pathlib import Path
import pandas as pd
from langneurons.jobs.parameters import labels_of, stage
from langneurons.reporting.drawing import draw_figures
from langneurons.reporting.labels import Labels
from langneurons.selection.table import NeuronTable
frame = pd.DataFrame({"lang": ["en", "en", "vi"], "layer": [0, 1, 1], "neuron": [1, 2, 3]})
frame = frame.assign(score=[0.5, 0.7, 0.9])
metadata = {"languages": ["en", "vi"], "n_layers": 2, "d_mlp": 4}
given = stage(config, "draw_figures", model="tiny", protocol="")
mine = [one for one in given["figures"] if one["kind"] == "ranked_scores"]
NeuronTable(frame, metadata).to_parquet(mine[0]["files"][0])
draw_figures(mine, Labels(**given["labels"]))
print(*sorted(str(path) for path in Path("results/figures").rglob("*.*")))
print(Path(mine[0]["stem"] + ".rst").read_text())
"""
    )
    drawn, caption = run(script).strip().split("\n")
    stem = "results/figures/mine/tiny/two/mine/ranked_scores"
    assert drawn.split() == [f"{stem}.{kind}" for kind in ("png", "rst", "svg")]
    assert caption == (
        "Scores of each language's neurons, tiny, selection mine, the highest first."
    )


def test_the_documented_stage_is_eight_files_and_runs(tmp_path):
    checkout = Checkout(tmp_path)
    parts = blocks("## A stage")
    assert len(parts) == 7  # and its test
    for name, text in parts.items():
        place = tmp_path / name.partition(",")[0]
        if name == "src/langneurons/config/config.py, in Config":
            before(place, "    results: ResultsConfig", text)
            settings = "from langneurons.evaluation.spread_settings import SpreadConfig\n"
            before(place, "from langneurons.interventions.settings", settings)
        elif name == "Snakefile":
            place.write_text(place.read_text(encoding="utf-8") + text, encoding="utf-8")
        else:
            assert not place.exists()
            place.write_text(text, encoding="utf-8")
    config = {key: checkout.config[key] for key in ("models", "corpus", "statistics")}
    config |= {"name": "mine", "language_sets": {"two": ["en", "vi"]}, "spread": {"base": 2}}
    checkout.config = config | {"selections": {"lape": {"method": "lape"}}}
    checkout.save()
    (tmp_path / "tiny-model").mkdir()
    (tmp_path / "tiny-model/config.json").write_text('{"model_type": "llama"}')
    assert checkout.planned()["measure_spread"] == 1
    frame = pd.DataFrame({"lang": ["en"] * 4 + ["vi"], "layer": [0, 1, 2, 3, 1]})
    frame = frame.assign(neuron=range(5), score=0.5)
    metadata = {"languages": ["en", "vi"], "n_layers": 4, "d_mlp": 8}
    NeuronTable(frame, metadata).to_parquet(tmp_path / "results/tiny/neurons/en-vi/lape.parquet")
    target = "results/tiny/spread/en-vi/lape.parquet"
    checkout.make("--allowed-rules", "measure_spread", "--", target)
    found, names = read_parquet(tmp_path / target)
    assert found.set_index("lang")["entropy"].to_dict() == {"en": 2.0, "vi": 0.0}
    assert names == {"model": "tiny", "langset": "en-vi", "selection": "lape"}
