"""What the documentation shows is what the code does."""

import ast
import json
import re
from pathlib import Path

import pytest
from inprocess import planned
from test_encoding import byte_level
from test_rooms import ROOMS
from tiny import tiny_model

import langneurons as ln
from langneurons.base.yaml import parse_yaml
from langneurons.cli import app, main
from langneurons.config import build
from langneurons.models.families import FAMILIES
from langneurons.selection.methods import METHODS

ROOT = Path(__file__).parent.parent
ADDING = (ROOT / "docs/adding.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN = (ROOT / "docs/own_model.md").read_text(encoding="utf-8")
# Written by a command, so that its lines are as long as what they show.
GENERATED = {"docs/configuration.md", "docs/api.md"}
# Names as they were.
HISTORY = {"CHANGELOG.md"}
# Files that a reader is shown how to write.
SHOWN = {"mine.yaml"}
SIZE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "vocab_size": 100}


def blocks(text):
    """Return the YAML blocks of a page."""
    return re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


def test_the_families_of_the_page_are_those_of_the_table():
    table = re.search(r"<!-- families -->(.*?)<!-- /families -->", ADDING, re.DOTALL).group(1)
    gated, plain = re.findall(r"^- (?:gated|plain) MLP, .*?:((?:.|\n  )*)", table, re.M)
    shown = [re.findall(r"`([a-z0-9_]+)`", line) for line in (gated, plain)]
    gates = {name: one.gate is not None for name, one in FAMILIES.items()}
    assert shown[0] == sorted(name for name, gate in gates.items() if gate)
    assert shown[1] == sorted(name for name, gate in gates.items() if not gate)


def test_the_readme_counts_the_methods_of_the_registry():
    others = {"published", "combined", "experts"}  # named beside them
    ranked = {name for name, one in METHODS.items() if one.units == "neurons" and not one.random}
    words = {11: "Eleven", 12: "Twelve", 13: "Thirteen", 14: "Fourteen", 15: "Fifteen"}
    assert f"{words[len(ranked - others)]} selection methods" in README


def test_the_entries_of_a_model_are_legal():
    section = ADDING.split("## A model\n")[1].split("\n## ")[0]
    block, chat = blocks(section)
    raw = parse_yaml(blocks(OWN)[0]) | parse_yaml(block)
    kinds = {entry.source.kind for entry in build(raw).models.values()}
    assert kinds == {"hub", "local", "gguf"}
    spoken = build(parse_yaml(blocks(OWN)[0]) | parse_yaml(chat))
    assert spoken.forcing.chat and spoken.models["qwen3"].chat.system


def test_ten_lines_are_a_whole_run(tmp_path, monkeypatch, capsys):
    (block,) = blocks(OWN)
    assert len(block.splitlines()) == 10
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/mine").mkdir(parents=True)
    (tmp_path / "models/mine/config.json").write_text(json.dumps(SIZE))
    (tmp_path / "mine.yaml").write_text(block)
    rules = [job.rule.name for job in planned(tmp_path, [tmp_path / "mine.yaml"])]
    assert rules.count("collect_statistics") == 4 and rules.count("select_neurons") == 2
    assert rules.count("measure_perplexity") == 2 and rules[-1] == "write_report"
    assert main(["plan", "mine.yaml"]) == 0
    assert "collect_statistics" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:.* has no neurons:UserWarning")
def test_the_example_of_the_readme_runs(monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    tokenizer = byte_level(pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    model = tiny_model("llama", num_hidden_layers=2, intermediate_size=512, vocab_size=300)
    monkeypatch.setattr(ln, "load", lambda name: ln.LanguageModel(model, tokenizer))
    texts = ln.mini_texts()
    short = {lang: [text[:16] for text in texts[lang]] for lang in texts}
    monkeypatch.setattr(ln, "mini_texts", lambda langs: {lang: short[lang] for lang in langs})
    exec(example, {})
    untouched, own, control = map(float, capsys.readouterr().out.split())
    assert untouched != own and untouched != control and own != control


@pytest.mark.parametrize(
    "key, value",
    [
        ("tasks", {"xnli": {"source": {"kind": "mini"}, "languages": ["vi", "zh"]}}),
        ("corpus", {"source": {"kind": "jsonl", "path": "text/{lang}.jsonl"}}),
        ("browser", {}),
    ],
)
def test_the_next_steps_are_legal(key, value):
    build(parse_yaml(blocks(OWN)[0]) | {key: value})


def test_the_rooms_of_the_page_are_those_of_the_package():
    section = (ROOT / "docs/design.md").read_text(encoding="utf-8").split("\n## Rooms\n")[1]
    named = re.findall(r"^\| (\w+) \|", section.split("\n### ")[0], re.M)
    assert named == ["room", *(room for room in ROOMS if room != "__main__")]


def pages():
    """Return every page of Markdown that the project keeps, as paths below the project."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "config").rglob("*.md")]
    found += [ROOT / "profiles/README.md", ROOT / "benchmarks/README.md"]
    found += (ROOT / "src").rglob("*.md")
    return sorted(str(path.relative_to(ROOT)) for path in found)


def prose(page):
    """Return the numbered lines of a page without its blocks of code."""
    inside, lines = False, []
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").split("\n"), 1):
        if line.startswith("```"):
            inside = not inside
        elif not inside and not line.startswith("    "):
            lines.append((number, line))
    return lines


def code(page):
    """Return the lines of a page's blocks of code, and its code within sentences."""
    text = (ROOT / page).read_text(encoding="utf-8")
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.M)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.M)
    lines = [line for block in fenced for line in block.split("\n")]
    lines += re.findall(r"^    (.*)$", rest, re.M)
    return [line.split(" #")[0].strip() for line in lines], re.findall(r"`([^`\n]+)`", rest)


def shown(text):
    """Return Markdown as it is read: links by their text."""
    return re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", text)


@pytest.mark.parametrize("page", sorted(set(pages()) - GENERATED))
def test_lines_and_cells_are_short(page):
    long = []
    for number, line in prose(page):
        if line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            long += [(number, len(shown(cell).strip())) for cell in cells]
        elif " " in line.strip():  # an address by itself has no place to break
            long.append((number, len(line)))
    assert [(number, size) for number, size in long if size > 120] == []


def anchors(page):
    """Return the anchors of a page's headings, as repositories of Git show them."""
    found = []
    for _number, line in prose(page):
        if line.startswith("#"):
            title = shown(line.lstrip("#").strip()).lower()
            anchor = re.sub(r"[^\w -]", "", title).replace(" ", "-")
            again = found.count(anchor)
            found += [anchor, f"{anchor}-{again}"] if again else [anchor]
    return found


@pytest.mark.parametrize("page", pages())
def test_links_of_a_page_lead_somewhere(page):
    folder = (ROOT / page).parent
    text = "\n".join(line for _number, line in prose(page))
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", text):
        if target.startswith(("http", "mailto")):
            continue
        linked = (folder / target).resolve() if target else ROOT / page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked.relative_to(ROOT)), f"{target}#{anchor}"


TREES = "src|workflow|config|docs|tests|profiles|benchmarks"


@pytest.mark.parametrize("page", sorted(set(pages()) - HISTORY))
def test_files_and_modules_that_a_page_names_exist(page):
    lines, words = code(page)
    text = (ROOT / page).read_text(encoding="utf-8")
    written = re.findall(r"^```\w+\n# ([\w./-]+)", text, re.M)  # files that the page shows
    for word in " ".join([*lines, *words]).split():
        word = word.strip("\"'(),;:[]").rstrip(".")
        if re.fullmatch(r"langneurons(\.\w+)+", word):
            # A module, or a name in one.
            parts = word.split(".")[1:]
            places = ["/".join(["src/langneurons", *parts[:n]]) for n in (len(parts), -1)]
            files = [f"{place}{end}" for place in places for end in (".py", "/__init__.py")]
            assert any((ROOT / file).is_file() or file in written for file in files), word
        elif re.fullmatch(rf"(?:{TREES})/[\w./-]+\.(py|smk|yaml|csv|md|json|txt|rst)", word):
            assert (ROOT / word).is_file() or word in written, word


@pytest.mark.parametrize("page", sorted(set(pages()) - HISTORY))
def test_commands_that_a_page_names_exist(page):
    lines, words = code(page)
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    known = {command.name or command.callback.__name__ for command in app.registered_commands}
    for line in [*lines, *words]:
        for target in re.findall(r"^make ([a-z][a-z-]*)", line):
            assert target in targets, line
        for command in re.findall(r"^(?:\.venv/bin/)?langneurons ([a-z]\w*)", line):
            assert command in known, line
        if line.startswith("snakemake ") and "--configfile" in line:
            for path in re.findall(r"\S+\.yaml", line):
                assert (ROOT / path).is_file() or path in SHOWN, line


# Words of Snakemake and of SLURM.
FOREIGN = {"Directory cannot be locked", "sbatch"}


def test_messages_that_troubleshooting_names_are_those_of_the_code():
    trees = (ast.parse(path.read_text("utf-8")) for path in (ROOT / "src").rglob("*.py"))
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant))
    texts = [str(node.value) for node in nodes]
    lines = [line for _number, line in prose("docs/troubleshooting.md") if line.startswith("| `")]
    named = {line: re.match(r"\| `([^`]+)`", line).group(1) for line in lines}
    assert len(named) > 12
    for line, message in named.items():
        pieces = [piece.strip(" .:;,()") for piece in re.split(r"\.\.\.+|\bN\b", message)]
        found = [any(piece in text for text in texts) for piece in pieces if len(piece) > 7]
        assert message in FOREIGN or any(found), line
