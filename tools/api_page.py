"""Write docs/api.md from the signatures and docstrings of the public interface.

python tools/api_page.py [--check]
"""

import ast
import re
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "src" / "langneurons"
PAGE = ROOT / "docs" / "api.md"
SECTIONS = ("Args", "Raises", "Warns", "Example")
# Public names that are defined elsewhere.
ELSEWHERE = {"LanguageModel": "models/language_model.py", "applied": "interventions/apply.py"}
WIDTH = 118


def names() -> list[str]:
    """Return the public names."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    raise ValueError("no __all__ in langneurons/__init__.py")


def definition(name: str) -> ast.FunctionDef | ast.ClassDef:
    """Return the definition of a public name."""
    elsewhere = [PACKAGE / ELSEWHERE[name]] if name in ELSEWHERE else []
    for path in elsewhere or sorted((PACKAGE / "api").glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
                return node
    raise ValueError(f"no {name} in langneurons/api")


def signature(node: ast.FunctionDef, owner: str = "") -> str:
    """Return the signature of a function as it is called."""
    arguments = ast.unparse(node.args)
    if owner:
        arguments = re.sub(r"^(self|cls)(, )?", "", arguments)
    result = "" if node.returns is None else f" -> {ast.unparse(node.returns).strip(chr(39))}"
    name = f"{owner}.{node.name}" if owner else f"ln.{node.name}"
    line = f"{name}({', '.join(split(arguments))}){result}"
    if len(line) <= WIDTH:
        return line
    return f"{name}(\n    " + ",\n    ".join(split(arguments)) + f",\n){result}"


def split(arguments: str) -> list[str]:
    """Return the arguments of a signature one by one."""
    found, depth, start = [], 0, 0
    for place, character in enumerate(arguments):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            found.append(arguments[start:place].strip())
            start = place + 1
    # As they are written in source: spaces about the default of an annotated argument.
    return [
        one.replace("=", " = ", 1) if ": " in one else one
        for one in [*found, arguments[start:].strip()]
    ]


def sections(text: str) -> dict[str, str]:
    """Return the parts of a docstring by heading; the first part has none."""
    found, current = {"": []}, ""
    for line in text.splitlines():
        heading = line.strip().removesuffix(":")
        if line == f"{heading}:" and heading in SECTIONS:
            current = heading
            found[current] = []
        else:
            found[current].append(line)
    return {name: textwrap.dedent("\n".join(lines)).strip("\n") for name, lines in found.items()}


def entries(text: str) -> list[tuple[str, str]]:
    """Return (name, description) of each entry of a section."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith(" ") and found:
            name, said = found[-1]
            found[-1] = name, f"{said} {line.strip()}"
        elif line.strip():
            name, _, said = line.partition(": ")
            found.append((name, said.strip()) if said else ("", line.strip()))
    return found


def wrapped(text: str, indent: str = "") -> str:
    """Return paragraphs, each wrapped; lines that are indented stay as they are."""
    parts = []
    for block in re.split(r"\n\s*\n", text.strip()):
        if block.startswith("    "):
            code = textwrap.dedent(block)
            if parts and parts[-1].endswith("\n```"):
                parts[-1] = f"{parts[-1][:-4]}\n\n{code}\n```"
            else:
                parts.append(f"```python\n{code}\n```")
        else:
            filled = " ".join(block.split())
            parts.append(
                textwrap.fill(filled, WIDTH, subsequent_indent=indent, break_on_hyphens=False)
            )
    return "\n\n".join(parts)


def described(text: str) -> list[str]:
    """Return the Markdown of a docstring."""
    parts = sections(text)
    lines = [wrapped(parts[""])]
    for name in ("Args", "Raises", "Warns"):
        if name in parts:
            if name != "Args":
                lines += ["", f"{name}:"]
            lines.append("")
            for key, said in entries(parts[name]):
                label = f"- `{key}`: " if key else "- "
                lines.append(wrapped(label + said, "  "))
    if "Example" in parts:
        lines += ["", "```pycon", parts["Example"], "```"]
    return lines


def documented(name: str) -> str:
    """Return the section of a public name."""
    node = definition(name)
    lines = [f"## {name}", ""]
    if isinstance(node, ast.FunctionDef):
        lines += ["```python", signature(node), "```", "", *described(ast.get_docstring(node))]
        return "\n".join(lines)
    lines += described(ast.get_docstring(node))
    bases = {ast.unparse(base) for base in node.bases} & {"Shared"}
    for item in [*node.body, *(item for base in sorted(bases) for item in definition(base).body)]:
        if not isinstance(item, ast.FunctionDef) or item.name.startswith("_"):
            continue
        is_property = any("property" in ast.unparse(one) for one in item.decorator_list)
        head = f"{name}.{item.name}" if is_property else signature(item, name)
        lines += ["", f"### {name}.{item.name}", "", "```python", head, "```", ""]
        lines += described(ast.get_docstring(item))
    return "\n".join(lines)


def page() -> str:
    """Return the page."""
    tree = ast.parse((PACKAGE / "api" / "__init__.py").read_text(encoding="utf-8"))
    order = names()
    contents = wrapped(" · ".join(f"[{name}](#{name.lower()})" for name in order))
    head = [
        "<!-- Written by tools/api_page.py from the docstrings. -->",
        "# Python interface",
        "",
        wrapped(ast.get_docstring(tree)),
        "",
        contents,
    ]
    return "\n".join(head) + "\n\n" + "\n\n".join(map(documented, order)) + "\n"


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != text:
            print("docs/api.md is out of step; run: python tools/api_page.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
