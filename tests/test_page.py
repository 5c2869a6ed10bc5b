import html
import json
import math
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from langneurons.reporting import page

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="60pt" height="30pt" viewBox="0 0 60 30">'
    '<rect width="60" height="30" fill="#0072B2"/>'
    '<g class="tips" fill="none" pointer-events="all"><rect x="10.0" y="5.0" width="20.0"'
    ' height="9.0"><title>vi: &lt;b&gt; "0.5" &amp; more</title></rect></g>\n</svg>'
)
VALUES = [2.0, 10.0, 0.123456789, math.nan, -3.5, 1e-7, 10.00001]
MEANS = ["80.1 [79.0, 81.2]", "9.5 [9.0, 10.0]", "", "100", "<0.001", "not run", "−4.0 [−5, −3]"]
SORTED = ["−3.5", "1e−07", "0.1235", "2.0", "10.0", "10", ""]


def content(tmp_path):
    svg = tmp_path / "figure.svg"
    svg.write_text(SVG)
    langs = ["vi", "en", "ur", "hi", "zh", "sw", "de"]
    small = pd.DataFrame({"lang": langs, "value": VALUES, "mean": MEANS})
    large = pd.DataFrame({"row": np.arange(120), "name": [f"kind{i % 7}" for i in range(120)]})
    hostile = pd.DataFrame({"<b>": ["<script>window.broken = 1</script>", '"&</td>']})
    rows = pd.DataFrame({"task": ["a", "b", "c"], "verdict": ["holds", "not run", "contradicted"]})
    groups = ("Tables of the paper", "All results")
    files = (str(tmp_path / "small.csv"), str(tmp_path / "small.tex"))
    for file in files:
        Path(file).write_text("lang,value\nvi,0.123456789\n")
    tables = [
        page.Table("Small", "Its caption.", small, "small", groups[0], files),
        page.Table("Large", "", large, "large", groups[1]),
        page.Table("Hostile <i>", "</script><!-- x", hostile, "hostile", groups[1]),
        page.Table("Empty", "", small.iloc[:0], "empty", groups[1]),
        page.Table(
            "Long hostile",
            "",
            pd.DataFrame({"x": ["</script><script>window.broken = 1</script>"] * 60}),
            "long",
            groups[1],
        ),
    ]
    pictures = [
        page.Picture(f"Figure {i}", "What it shows.", str(svg), f"figure-{i}", "Neurons", "small")
        for i in range(3)
    ]
    agreement = pd.DataFrame(
        {"item": ["Table 4"], "model": ["m"], "printed": [54], "run": [30], "inside": [21]}
    )
    verdicts = [
        page.Verdict("Nothing helps.", "An interval inside a margin.", rows),
        page.Verdict("Never run.", "None.", rows.iloc[:0]),
    ]
    return {
        "title": "Results & more",
        "found": [("Zero costs 2.4 nats <i>.", "figure-0"), ("Nothing else.", "small")],
        "lead": ["First paragraph.", "Second <em>."],
        "facts": {"models": "2", "neurons": "1,246"},
        "verdicts": verdicts,
        "agreement": agreement,
        "tables": tables,
        "pictures": pictures,
        "provenance": {"commit": "abc"},
        "pages": [("Tiny, three", "../browser/index.html")],
    }


def write(tmp_path, name="page.html", **changes):
    path = tmp_path / name
    page.write_page(path, page.Page(**(content(tmp_path) | changes)))
    return path


# In the browser --------------------------------------------------------------------------------

DRIVER = """
<script>
(async () => {
  const report = {};
  const texts = (id, column) =>
    [...document.querySelectorAll(`#${id} tbody tr`)].map((row) => row.cells[column].textContent);
  const head = (id, column) => document.querySelectorAll(`#${id} th`)[column];
  const shape = (selector) => {
    const box = document.querySelector(selector).getBoundingClientRect();
    return [box.height, box.bottom];
  };
  const sort = (id, column) => {
    head(id, column).querySelector("button").click();
    return [head(id, column).getAttribute("aria-sort"), texts(id, column)];
  };
  const type = (input, text) => {
    input.value = text;
    input.dispatchEvent(new Event("input"));
  };
  try {
    report.summary = shape("#page-summary h1");
    report.badge = shape(".badge");
    report.height = innerHeight;
    report.value = [sort("small", 1), sort("small", 1), sort("small", 1)];
    report.mean = [sort("small", 2), sort("small", 2)];
    report.marked = document.querySelectorAll("#small th[aria-sort]").length;
    report.lang = sort("small", 0);
    report.rows = [texts("large", 0).length];
    sort("large", 0);
    report.largest = sort("large", 0);
    const filter = document.querySelector("#large .filter");
    const all = document.querySelector("#large .all");
    all.click();
    report.rows.push(texts("large", 0).length);
    type(filter, "KIND3");
    report.filtered = [...new Set(texts("large", 1))];
    report.count = document.querySelector("#large .count").textContent;
    report.allHidden = all.hidden;
    type(filter, "no such row");
    report.rows.push(texts("large", 0).length);
    document.querySelector("#long .all").click();
    report.long = [...new Set(texts("long", 0))];
    report.filters = document.querySelectorAll("main .filter").length;
    type(document.getElementById("page-search"), "figure 2");
    report.found = [...document.querySelectorAll("nav a")]
      .filter((link) => link.getClientRects().length).map((link) => link.textContent);
    type(document.getElementById("page-search"), "");
    const images = [...document.querySelectorAll("figure img")];
    for (const image of images) {
      image.loading = "eager";
      await image.decode();
    }
    report.images = images.map((image) => image.naturalWidth);
    const wait = (ms) => new Promise((done) => setTimeout(done, ms));
    const mark = document.querySelector("#figure-1 .tips rect");
    const sheet = document.querySelector("#figure-1 img").getBoundingClientRect();
    const box = mark.getBoundingClientRect();
    report.mark = [(box.left - sheet.left) / sheet.width, box.width / sheet.width];
    const move = (target) => target.dispatchEvent(
      new PointerEvent("pointermove", { bubbles: true, clientX: 90, clientY: 90 }));
    const tip = document.getElementById("page-tip");
    move(mark);
    report.tip = [tip.textContent, tip.matches(":popover-open")];
    move(document.body);
    report.tip.push(tip.matches(":popover-open"));
    const saved = [], press = HTMLAnchorElement.prototype.click;
    const make = URL.createObjectURL.bind(URL);
    URL.createObjectURL = (blob) => { saved.push(blob); return make(blob); };
    HTMLAnchorElement.prototype.click = function () {
      if (this.isConnected) press.call(this);
      else saved.push(this.download, this.href.slice(0, 18));
    };
    document.querySelector("#small .files a").click();
    await wait(300);
    document.querySelector("#figure-1 a.svg").click();
    await wait(50);
    report.saved = [await saved[0].text(), ...saved.slice(1)];
    document.querySelector("#figure-1 .zoom").click();
    const large = document.querySelector("dialog");
    await large.querySelector("img").decode();
    report.dialog = [large.open, large.querySelector("h2").textContent];
    report.picture = large.querySelector("img").getBoundingClientRect().height;
    large.querySelector("[data-step='1']").click();
    report.dialog.push(large.querySelector("h2").textContent);
    report.large = large.querySelectorAll(".stage .tips rect").length;
    large.querySelector(".close").click();
    report.dialog.push(large.open);
    report.broken = window.broken ?? null;
    report.overflow = document.documentElement.scrollWidth - innerWidth;
  } catch (error) {
    report.error = String(error.stack);
  }
  console.error("end of driver");
  document.documentElement.dataset.report = JSON.stringify(report);
})();
</script>
"""


def browser():
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip(f"no browser found: none of {', '.join(names)}")
    return found


def run(path, width=1400, height=1000):
    """Return what the driver reports and the console's lines."""
    driven = path.with_name(f"driven-{width}.html")
    driven.write_text(path.read_text("utf-8").replace("</body>", DRIVER + "</body>"), "utf-8")
    command = [
        browser(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        f"--user-data-dir={path.parent / 'profile'}", f"--window-size={width},{height}",
        "--virtual-time-budget=10000", "--enable-logging=stderr", "--v=0", "--dump-dom",
        driven.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    match = re.search(r'data-report="([^"]*)"', done.stdout)
    assert match, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(html.unescape(match[1])), console


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return run(write(tmp_path_factory.mktemp("page")))


def test_no_error_on_the_console(opened):
    report, console = opened
    assert "error" not in report
    assert len(console) == 1 and "end of driver" in console[0]


def test_opens_on_the_summary_with_verdicts(opened):
    report, _ = opened
    for height, bottom in (report["summary"], report["badge"]):
        assert height > 0
        assert bottom < report["height"]


def test_headers_sort_by_full_values(opened):
    up, down, back = opened[0]["value"]
    assert up == ["ascending", SORTED]
    assert down == ["descending", SORTED[-2::-1] + [""]]
    assert back[0] is None and back[1][0] == "2.0"


def test_headers_sort_texts_that_start_with_numbers(opened):
    up, down = opened[0]["mean"]
    assert up[0] == "ascending" and down[0] == "descending"
    ordered = [MEANS[i] for i in (6, 4, 1, 0, 3)]
    assert up[1] == [*ordered, "", "not run"]
    assert down[1] == [*ordered[::-1], "", "not run"]
    assert opened[0]["marked"] == 1
    assert opened[0]["lang"][1] == ["de", "en", "hi", "sw", "ur", "vi", "zh"]


def test_long_tables_are_cut_filtered_and_unfolded(opened):
    report, _ = opened
    assert report["rows"] == [50, 120, 0]
    assert report["largest"][0] == "descending"
    assert report["largest"][1][:2] == ["119", "118"]
    assert report["filtered"] == ["kind3"]
    assert report["count"] == "17 of 120 rows match"
    assert report["allHidden"]
    assert report["filters"] == 2  # only tables with more than ten rows


def test_search_filters_the_headings(opened):
    assert opened[0]["found"] == ["Figure 2"]


def test_figures_load_and_open_large(opened):
    report, _ = opened
    assert report["images"] == [80] * 3
    assert report["dialog"] == [True, "Figure 1", "Figure 2", False]
    assert report["picture"] > 300


def test_marks_say_their_values_where_they_are_drawn(opened):
    report, _ = opened
    assert report["tip"] == ['vi: <b> "0.5" & more', True, False]
    left, width = report["mark"]
    assert left == pytest.approx(10 / 60, abs=0.01) and width == pytest.approx(20 / 60, abs=0.01)
    assert report["large"] == 1


def test_tables_and_figures_are_saved_from_the_page_alone(opened):
    report, _ = opened
    text, name, address, picture, source = report["saved"]
    assert text == "lang,value\nvi,0.123456789\n" and name == "small.csv"
    assert address.startswith("blob:") and picture == "figure-1.svg"
    assert source.startswith("data:image/svg")


def test_content_never_becomes_markup(opened):
    report, _ = opened
    assert report["broken"] is None
    assert report["long"] == ["</script><script>window.broken = 1</script>"]


def test_narrow_screens_scroll_only_inside_tables(tmp_path):
    report, console = run(write(tmp_path), 500, 900)
    assert "error" not in report and len(console) == 1
    assert report["overflow"] <= 0


# As text ---------------------------------------------------------------------------------------


def test_equal_inputs_give_equal_bytes(tmp_path):
    assert write(tmp_path, "a.html").read_bytes() == write(tmp_path, "b.html").read_bytes()


def test_page_needs_no_network(tmp_path):
    text = write(tmp_path).read_text("utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"""(src|href)=["'](https?:)?//""", text)
    assert not re.search(r"\son\w+=", text)
    assert 'download="small.csv"' in text and ">LaTeX</a>" in text and str(tmp_path) not in text
    assert 'href="../browser/index.html">Tiny, three</a>' in text
    assert text.count('<a href="#small" aria-label="The numbers of:') == 3


def test_text_is_escaped(tmp_path):
    text = write(tmp_path).read_text("utf-8")
    assert "<script>window.broken" not in text
    assert "&lt;script&gt;window.broken" in text
    assert "Second &lt;em&gt;." in text


def test_empty_parts_have_no_section(tmp_path):
    empty = {"lead": [], "facts": {}, "verdicts": [], "agreement": None, "pictures": []}
    text = write(tmp_path, **empty, provenance={}).read_text("utf-8")
    for name in ("agreement", "claims", "figures-1", "provenance", "large"):
        assert f'id="page-{name}"' not in text
    assert 'id="page-tables-2"' in text
    everything = write(tmp_path).read_text("utf-8")
    for name in ("agreement", "claims", "figures-1", "provenance", "large"):
        assert f'id="page-{name}"' in everything


@pytest.mark.parametrize(
    "value, number",
    [
        (3, 3), (np.float64(0.5), 0.5), (math.nan, None), (True, None), ("80.1 [79.0, 81.2]", 80.1),
        ("1,246", 1246), ("−4.5", -4.5), ("12 %", 12), ("3 of 9", 3), ("0.81 ± 0.02", 0.81),
        ("1e-05", 1e-5), ("<0.001", math.nextafter(0.001, 0)), ("P90", None), ("90p", None),
        ("1.5B", None), ("", None), ("-", None), ("2024-01-02", None), ("0.5**", 0.5), (None, None),
    ],
)  # fmt: skip
def test_value_that_sorts(value, number):
    assert page._value(value) == number


def test_unusable_input_is_named(tmp_path):
    rows = pd.DataFrame({"verdict": ["maybe"]})
    with pytest.raises(ValueError, match="maybe.*holds, contradicted"):
        write(tmp_path, verdicts=[page.Verdict("c", "t", rows)])
    with pytest.raises(ValueError, match="no column 'verdict'"):
        write(tmp_path, verdicts=[page.Verdict("c", "t", pd.DataFrame({"x": [1]}))])
    one = content(tmp_path)["tables"][0]
    with pytest.raises(ValueError, match="used twice.*small"):
        write(tmp_path, tables=[one, one])
    with pytest.raises(ValueError, match="page-x"):
        write(tmp_path, tables=[page.Table("t", "", one.frame, "page-x", "g")])


@pytest.mark.parametrize(
    "root, size",
    [
        ('<svg width="60pt" height="30pt">', (80, 40)),
        ('<?xml version="1.0"?><svg viewBox="0 0 60 30">', (60, 30)),
        ("<svg height='9px' width='7px'>", (7, 9)),
        ('<svg width="100%" height="100%">', (0, 0)),
    ],
)
def test_size_of_a_figure(root, size):
    assert page._size(root) == size


def test_the_page_opens_on_findings_and_the_figure_that_shows_them(tmp_path):
    text = write(tmp_path).read_text()
    summary = text[text.index('id="page-summary"') : text.index("</section>")]
    assert "Zero costs 2.4 nats &lt;i&gt;." in summary and 'href="#small"' in summary
    assert summary.index("Zero costs") < summary.index('id="figure-0"') < summary.index("glance")
    assert text.count('<figure id="figure-0"') == 1
    assert text.index("Neurons") < text.index('id="page-provenance"')
    assert text.index("First paragraph.") > text.index('id="page-provenance"')
    bare = write(tmp_path, "bare.html", found=[]).read_text()
    assert '<ul class="found"' not in bare and '<figure id="figure-0"' in bare
