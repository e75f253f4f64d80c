"""What the docs show runs: README's Python, the example plug-in, the example recipe; every link points to something."""

from __future__ import annotations

import configparser
import os
import re
import runpy
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from markdown.extensions.toc import slugify
from scipy.optimize import linear_sum_assignment
from support.released import released
from support.shown import Shown, blocks, shrunk, small_runs, trees

import reidassoc
from reidassoc import registry
from reidassoc.bench.plan import read_plan
from reidassoc.cli import cli
from reidassoc.pipeline import associate
from reidassoc.recipe import choose
from reidassoc.recipe.compose import compose
from reidassoc.recipe.load import load_recipe
from reidassoc.testing import check_associator, toy_scene

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "docs"))
import fill

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUN = {"bash", "python"}  # what is run; other blocks are output, or what only a newcomer's machine can run
OWN = {"lab.md", "benchmarks.md"}  # pages with a test of their own below
NOT_HERE = (  # what console blocks may hold: commands for a newcomer's machine, or for several devices and nodes
    r"git|python3|uv|pip|printf|\.venv/bin/pip|apt-get|pre-commit|scripts/|torchrun |srun |SLURM_CONF=\S+ python "
    r"|reidassoc bench .* --executor slurm|reidassoc run .* --devices \d"
)
NOT_RUN = {"text", "console", "yaml", "toml", "csv", "bibtex"}


def blocks_of(page: str, language: str) -> list[str]:
    return [text for kind, _, text in blocks((ROOT / page).read_text(encoding="utf-8")) if kind == language]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trees(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    "page", [p for p in PAGES if p.parent != ROOT and p.name not in OWN], ids=lambda page: page.stem
)
def test_what_a_page_shows_runs(page: Path, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_runs(monkeypatch)
    shown = Shown(tmp_path, data)
    for language, title, text in blocks(page.read_text(encoding="utf-8")):
        assert language in RUN | NOT_RUN, f"{page.name}: a block of '{language}' is neither run nor known"
        if language == "bash":
            shown.shell(text)
        elif language == "python":
            shown.python(text, title)
        elif title:
            shown.file(text, title)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_that_do_not_run_hold_nothing_that_could(page: Path) -> None:
    for language, _, text in blocks(page.read_text(encoding="utf-8")):
        if language == "console":
            for line in text.splitlines():
                assert re.match(NOT_HERE, line), f"{page.name}: {line}"


def test_the_readme_s_three_lines_of_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run, label, _ = blocks_of("README.md", "python")
    (tmp_path / "lines.py").write_text(run)
    assert 0 < runpy.run_path("lines.py")["result"].protocols["all-search single-shot"]["mAP"]["mean"] <= 100
    scene = toy_scene()
    (tmp_path / "lines.py").write_text("import reidassoc as ra\n" + label)
    names = {m: scene.features[m].x for m in ("visible", "infrared")}
    found = runpy.run_path("lines.py", init_globals=names)["labels"]
    assert len(found.cross.visible) == len(scene.features.visible)


def test_the_readme_s_plugin_keeps_its_contract_and_its_promise(tmp_path: Path) -> None:
    path = tmp_path / "my_idea.py"
    path.write_text(blocks_of("README.md", "python")[2])
    (entry,) = registry.load_file(str(path))
    assert entry.name == "my_idea"
    idea = registry.build("associators", "my_idea(power=3.0)")
    check_associator(idea)
    scene = toy_scene()
    cross = associate(idea, scene).cross
    assert cross is not None
    unit = scene.clustering.own.map(lambda c: torch.nn.functional.normalize(c.centroids.double(), dim=1))
    cost = (1 - unit.visible @ unit.infrared.T).numpy() ** 3
    best = dict(zip(*linear_sum_assignment(cost), strict=True))
    for own, partner in zip(scene.clustering.own.visible.labels.tolist(), cross.visible.hard.tolist(), strict=True):
        assert partner == best.get(own, -1)


def test_the_example_recipes_compose(tmp_path: Path) -> None:
    texts = blocks_of("docs/recipes.md", "yaml")
    assert len(texts) == 2
    for text in texts:
        (tmp_path / "mine.yaml").write_text(text)
        assert len(compose(load_recipe(str(tmp_path / "mine.yaml"))).methods) == 2


def test_the_benchmark_page_s_grid_and_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = blocks_of("docs/benchmarks.md", "yaml")
    (tmp_path / "mine.yaml").write_text(text)
    plan = read_plan(tmp_path / "mine.yaml")
    assert len(plan.cells) == 4 * 2 * 3
    (lines,) = blocks_of("docs/benchmarks.md", "python")
    monkeypatch.chdir(ROOT)
    (tmp_path / "lines.py").write_text(lines)
    assert runpy.run_path(str(tmp_path / "lines.py"))["table"].rows


def test_the_benchmark_page_s_commands_run(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the runs that the page speaks of, and on a checkpoint with the keys of a released one."""
    monkeypatch.chdir(tmp_path)
    small_runs(monkeypatch)
    import_module("reidassoc.engine.import_checkpoint")  # keeps the real one, whichever test ran before
    real = choose.choose
    monkeypatch.setattr(choose, "choose", lambda **words: shrunk(real(**words)))  # what `reproduce` runs
    shown = Shown(tmp_path, data)
    shown.file(blocks_of("docs/benchmarks.md", "yaml")[0], "mine.yaml")
    for rest in ("mult", "pgm", "mult --dataset sysu_mm01 --data /data/SYSU-MM01 --out runs/mult-sysu_mm01-1"):
        shown.shell(f"reidassoc run --associator {rest}")
    released("mult", tmp_path / "sysu_all.pth")
    for text in blocks_of("docs/benchmarks.md", "bash"):
        for line in text.splitlines():
            shown.shell(line)
            if "import-checkpoint" in line:  # a ResNet-50 on small images
                recipe = Path("runs/released/recipe.yaml")
                recipe.write_text(re.sub(r"^size:\n- \d+\n- \d+$", "size: [32, 16]", recipe.read_text(), flags=re.M))
                assert "size: [32, 16]" in recipe.read_text()
    assert "tabular" in Path("table.tex").read_text(encoding="utf-8")


def test_the_lab_s_page_runs(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small_runs(monkeypatch, first=4)  # as many as advice on the length of stage 1 takes
    shown = Shown(tmp_path, data)
    for language, title, text in blocks((ROOT / "docs" / "lab.md").read_text(encoding="utf-8")):
        if language == "bash":
            shown.shell(text)
        elif language == "python":
            shown.python(text, title)
    assert len(shown.names["found"].rows) == 4
    assert shown.names["advice"].clusterer.startswith("dbscan(")
    assert (tmp_path / "end.safetensors").is_file()
    assert (tmp_path / "untrained.safetensors").is_file()
    assert (tmp_path / "alpha.csv").read_text().count("mult(") == 3


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    """Links, anchors, the API's names, and the tables that are filled in. Not --quiet: that counts no warning as one."""
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(
        build, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    mult = (tmp_path / "methods" / "mult" / "index.html").read_text(encoding="utf-8")
    assert "how strongly a sample is held to its start" in mult
    plugins = (tmp_path / "plugins" / "index.html").read_text(encoding="utf-8")
    assert "smallest scene that fails" in plugins
    assert "class" in plugins.partition("one_to_one")[0]
    assert "<!-- " not in re.sub(
        r"<!-- (table|options|source|output).*?-->|<!-- end( of table)? -->", "", mult + plugins
    )
    lab = (tmp_path / "lab" / "index.html").read_text(encoding="utf-8")
    assert "12 visible and 12 infrared clusters" in lab
    assert "16 combinations in" in lab
    text = (tmp_path / "api" / "index.html").read_text(encoding="utf-8")
    shown = {found.rpartition(".")[2] for found in re.findall(r'id="(reidassoc\.[\w.]+)"', text)}
    assert shown >= set(reidassoc.__all__) - {"SHARED", "OUTLIER", "__version__"}
    for place, public in (
        (r"registry", {"add", "load_file", "names", "entries", "find", "get", "build", "spec_of"}),
        (r"testing\.\w+", set(reidassoc.testing.__all__)),
    ):  # what users call, and nothing else
        assert set(re.findall(rf'id="reidassoc\.{place}\.(\w+)"', text)) == public


@pytest.mark.parametrize("page", [p for p in PAGES if fill.PIECE.search(p.read_text(encoding="utf-8"))], ids=str)
def test_a_page_holds_what_programs_know(page: Path) -> None:
    """Options, sources, and what commands print, but for its figures and their order: `python docs/fill.py` writes them."""

    def steady(piece: re.Match[str]) -> object:
        return sorted(re.sub(r"[\d.]+|[ ─]+", "", piece[0]).splitlines()) if piece[1] == "output" else piece[0]

    text = page.read_text(encoding="utf-8")
    for found, made in zip(fill.PIECE.finditer(text), fill.PIECE.finditer(fill.filled(text)), strict=True):
        assert steady(found) == steady(made)


def test_the_notebook_runs(tmp_path: Path) -> None:
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(ROOT / "docs" / "notebooks" / "quickstart.ipynb", as_version=4)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = [output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("all-search single-shot: Rank-1" in text for text in printed) == 2


def test_the_scaffold_is_the_readme_s_plugin() -> None:
    from reidassoc.scaffold import source

    def body(text: str) -> str:
        return text[text.index("from dataclasses") :]

    assert body(source("associator", "my_idea")) == body(blocks_of("README.md", "python")[2])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        file = page.parent / target if target else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor and page.parent == ROOT:  # in docs/, the site's build looks at anchors
            headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {slugify(heading.replace("`", ""), "-") for heading in headings}, f"{page.name}: #{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_named_in_the_docs_exist(page: Path) -> None:
    for line in re.findall(
        rf"reidassoc ((?:{'|'.join(cli.commands)})\b[^`\n]*)",
        page.read_text(encoding="utf-8"),
    ):
        command = cli.commands[line.split()[0]]
        if line.split()[0] == "data":
            command = command.commands[line.split()[1]]  # type: ignore[attr-defined]
        known = {option for parameter in command.params for option in parameter.opts}
        if line.startswith("bench perf"):  # handed on to the suite's own parsers
            suite = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks" / "perf").glob("*.py"))
            known = set(re.findall(r'"(--[a-z-]+)"', suite))
        for option in re.findall(r"(?<=\s)--[a-z-]+", line):
            assert option in known, f"{page.name}: reidassoc {line} has no {option}"


def test_every_block_of_a_page_in_docs_says_what_it_is() -> None:
    """One without a language, or indented, would be looked at by no test."""
    for page in (ROOT / "docs").rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        assert len(re.findall(r"^\s*```", text, re.MULTILINE)) == 2 * len(list(blocks(text))), page.name


def test_the_installation_page_has_every_extra() -> None:
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8").partition("## Extras")[2].partition("\n## ")[0]
    first = "".join(line.split("|")[1] for line in page.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`(\w+)`", first)) == set(setup["options.extras_require"])


def test_nothing_refers_to_what_is_outside() -> None:
    for path in [
        *PAGES,
        *ROOT.glob("reidassoc/**/*.py"),
        *ROOT.glob("plugins/**/*.py"),
        *ROOT.glob("benchmarks/**/*.py"),
    ]:
        assert "/".join(("..", "shared")) not in path.read_text(encoding="utf-8"), path
