"""Secrets stay in the environment; nothing from outside is executed."""

import ast
from pathlib import Path

from test_workflow import SECRETS

ROOT = Path(__file__).parent.parent
SOURCES = [*(ROOT / "src").rglob("*.py"), *(ROOT / "workflow").rglob("*.py")]


def test_no_file_of_a_run_holds_a_token(checkout):
    """Parameters, logs, Snakemake's records, results and reports, of a run with tokens set."""
    checkout.make("--report", "report.html")
    words = [value.encode() for value in SECRETS.values()]
    names = [name.encode() for name in SECRETS]
    read = 0
    for path in checkout.path.rglob("*"):
        if path.is_file() and not path.is_relative_to(checkout.path / "src"):
            content = path.read_bytes()
            read += 1
            assert not [word for word in words if word in content], path
            if "docs" not in path.parts and "config" not in path.parts:
                assert not [name for name in names if name + b"=" in content], path
    assert read > 200
    (checkout.path / "report.html").unlink()


def calls(tree: ast.AST) -> list[tuple[str, dict[str, ast.expr]]]:
    """Return (dotted name, keywords) of every call."""
    return [
        (ast.unparse(node.func), {word.arg: word.value for word in node.keywords})
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


def test_nothing_is_unpickled_and_no_remote_code_runs():
    loads = 0
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = {
            name.name
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in node.names
        }
        assert not imports & {"pickle", "joblib", "dill", "cloudpickle", "shelve"}, path
        for name, keywords in calls(tree):
            assert name not in ("eval", "exec", "pd.read_pickle"), path
            if name == "torch.load":
                assert ast.unparse(keywords["weights_only"]) == "True", path
                loads += 1
            if name == "np.load":
                assert "allow_pickle" not in keywords, path
            trust = keywords.get("trust_remote_code")
            assert trust is None or ast.unparse(trust) == "False", path
            if name.endswith((".from_pretrained", "load_dataset")) and "Auto" in name:
                assert trust is not None, f"{path}: {name}"
    assert loads >= 1
