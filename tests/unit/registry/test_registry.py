"""Plug-ins are found by entry point, by file and by ``add``; a broken one breaks only itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint
from pathlib import Path

import pytest
from click.testing import CliRunner

from reidassoc import Associator, Scene, registry
from reidassoc.cli import cli
from reidassoc.errors import PluginError, SpecError
from reidassoc.interfaces.plugins import KINDS
from reidassoc.pipeline import guarded
from reidassoc.registry import entry_points
from reidassoc.registry.entry_points import CHECKOUT, out_of_step
from reidassoc.types import Association

FILE = '''
from dataclasses import dataclass
from reidassoc import Association, Associator, Scene

@dataclass(frozen=True, kw_only=True)
class MyIdea(Associator):
    """Says nothing."""

    floor: float = 0.0

    def __call__(self, scene: Scene) -> Association:
        return Association()
'''

FOURTH = "    name = 'third'\n"


@pytest.mark.parametrize("kind", KINDS)
def test_every_built_in_loads_and_says_what_it_does(kind: str) -> None:
    found = list(registry.entries(kind))
    assert found
    for entry in found:
        assert entry.problem == "", f"{entry.name}: {entry.problem}"
        assert entry.claim.endswith((".", "?")), f"{entry.name}: the first line of its docstring is its claim"
        assert entry.origin.startswith("reidassoc ")


def test_a_package_s_facts_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A grid asks hundreds of times for a plug-in, and each reading of a package's metadata takes hundredths of a second."""
    first = registry.find("associators", "mult")
    monkeypatch.setattr(Distribution, "metadata", property(lambda package: pytest.fail("read again")))
    assert registry.find("associators", "mult") == first
    assert (first.origin.split()[0], first.licence) == ("reidassoc", "MIT")


def test_a_file_is_a_plugin(tmp_path: Path) -> None:
    path = tmp_path / "my_idea.py"
    path.write_text(FILE)
    (entry,) = registry.load_file(str(path))
    with pytest.raises(PluginError, match="associator my_idea failed: ZeroDivisionError"):
        guarded("associator", registry.build("associators", "my_idea"), lambda: 1 // 0)
    assert (entry.kind, entry.name, entry.origin) == ("associators", "my_idea", str(path))
    assert registry.build("associators", "my_idea(floor=0.2)").floor == 0.2
    assert "my_idea" in registry.names("associators")
    registry.load_file(f"{path}:MyIdea")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "x = 1\nraise ValueError('no')",
            r"could not be loaded: ValueError: no \(bad.py, line 2: raise ValueError\('no'\)\)$",
        ),
        ("\n\nif :\n", r"could not be loaded: SyntaxError: invalid syntax \(bad.py, line 3: if :\)$"),
        (
            "from reidassoc.ops import centroids",
            r"from 'reidassoc.ops' \(bad.py, line 1: from reidassoc.ops import centroids\); "
            r"it is in reidassoc.ops.prototypes$",
        ),
        ("from reidassoc.ops.assignment import Scene", r"\); it is in reidassoc$"),
        ("from reidassoc import transport", r"\); it is in reidassoc.ops.transport$"),
        ("from reidassoc import Associatr", r"\); did you mean 'Associator'\?$"),
        ("from reidassoc.ops.prototypes import centroid", r"\); did you mean 'centroids'\?$"),
        ("import reidassoc.ops.prototype", r"\); did you mean 'reidassoc.ops.prototypes'\?$"),
        ("import nothing_of_the_kind", r"import nothing_of_the_kind\)$"),
        ("x = 1", "holds no plug-in class"),
        ("def f(:", "could not be loaded"),
        (FILE.replace("MyIdea", "Global"), "name of Global must be a Python identifier and no keyword, got 'global'"),
        (FILE + "    name = 'my-idea'", "must be a Python identifier and no keyword, got 'my-idea'"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(PluginError, match=message):
        registry.load_file(str(path))


def test_a_missing_file_or_class_is_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no plug-in file"):
        registry.load_file(str(tmp_path / "none.py"))
    (tmp_path / "my_idea.py").write_text(FILE)
    near = re.escape(f"no plug-in file {tmp_path / 'myidea.py'}; did you mean '{tmp_path / 'my_idea.py'}'?;")
    with pytest.raises(PluginError, match=near):
        registry.load_file(str(tmp_path / "myidea.py"))
    with pytest.raises(PluginError, match=r"no plug-in file .*else\.py; expected"):
        registry.load_file(str(tmp_path / "else.py"))
    with pytest.raises(PluginError, match="holds no plug-in class Other"):
        registry.load_file(f"{tmp_path / 'my_idea.py'}:Other")


def test_a_file_s_class_may_not_bear_an_installed_plug_in_s_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table would show a stranger's figures under the shipped name. A package of the user's own is no other case."""
    path = tmp_path / "mine.py"
    path.write_text(FILE.replace("MyIdea", "Nearest"))
    words = ["lab", "none.npz", "--plugin", str(path), "--associator", "nearest,mult"]
    with pytest.raises(
        PluginError,
        match=r"mine\.py, class Nearest: reidassoc \S+ has associator 'nearest' already; rename the class, or give it",
    ) as refused:
        CliRunner().invoke(cli, words, catch_exceptions=False, standalone_mode=False)
    assert "\n" not in str(refused.value)
    assert registry.get("associators", "nearest").__module__ == "reidassoc_plugins.associators.nearest"
    path.write_text(FILE.replace("MyIdea", "Dbscan"))  # the name of a clusterer is free among associators
    registry.load_file(str(path))
    path.write_text(FILE + "    name = 'mult'\n\n" + FILE.replace("MyIdea", "Other"))
    registry.load_file(f"{path}:Other")  # the class that is asked for, alone
    with pytest.raises(PluginError, match=r"class MyIdea: .* has associator 'mult' already"):
        registry.load_file(str(path))
    own, real = EntryPoint("my_idea", "reidassoc_my_idea:MyIdea", "reidassoc.associators"), entry_points.installed
    monkeypatch.setattr(entry_points, "installed", lambda group: (*real(group), *([own] if group == own.group else [])))
    path.write_text(FILE)
    with pytest.raises(PluginError, match=r"reidassoc_my_idea:MyIdea has associator 'my_idea' already; .*--plugin"):
        registry.load_file(str(path))


def test_two_files_may_not_hold_plug_ins_of_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(FILE)
    monkeypatch.chdir(tmp_path)
    registry.load_file("one.py")
    with pytest.raises(PluginError, match=r"^both one\.py and two\.py hold associator 'my_idea'; give one"):
        registry.load_file("two.py")
    (tmp_path / "two.py").write_text(FILE.replace("MyIdea", "Other") + FILE)
    with pytest.raises(PluginError, match=r"both one\.py and two\.py"):
        registry.load_file("two.py")
    assert "other" not in registry.names("associators")  # nothing of a file that is refused
    (tmp_path / "one.py").write_text(FILE.replace("0.0", "0.5"))  # edited, and loaded again by another way to it
    registry.load_file(str(tmp_path / "one.py"))
    assert registry.build("associators", "my_idea").floor == 0.5
    (tmp_path / "three.py").write_text(FILE.replace("MyIdea", "Third") + FILE.replace("MyIdea", "Fourth") + FOURTH)
    with pytest.raises(PluginError, match=r"three\.py holds two classes of the name associator 'third', .* Fourth;"):
        registry.load_file("three.py")
    (tmp_path / "three.py").write_text(FILE.replace("MyIdea", "Third") + "\n\nAgain = Third\n")  # one class
    assert len(registry.load_file("three.py")) == 1


def test_added_classes_are_found_by_their_kind() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Quiet(Associator):
        """Says nothing."""

        def __call__(self, scene: Scene) -> Association:
            return Association()

    registry.add("quiet", Quiet)
    assert registry.get("associator", "quiet") is Quiet
    with pytest.raises(PluginError, match="must be a Python identifier"):
        registry.add("not a name", Quiet)
    with pytest.raises(PluginError, match="is no plug-in"):
        registry.add("number", int)


def test_an_added_class_takes_the_place_of_an_added_one_and_of_no_installed_one() -> None:
    def typed(floor: float) -> type[Associator]:  # a notebook's cell, run again
        namespace: dict[str, type[Associator]] = {}
        exec(FILE.replace("0.0", str(floor)), namespace)
        return namespace["MyIdea"]

    for floor in (0.1, 0.2):
        registry.add("my_idea", typed(floor))
        assert registry.build("associators", "my_idea").floor == floor
    with pytest.raises(PluginError, match=r"^reidassoc \S+ has associator 'nearest' already; add MyIdea under another"):
        registry.add("nearest", typed(0.3))
    registry.add("nearest", registry.get("associators", "nearest"))  # itself


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(PluginError, match="no associator 'malt'; did you mean 'mult'"):
        registry.build("associators", "malt")
    with pytest.raises(PluginError, match=r"^no associator 'dbscan'; 'dbscan' is among the clusterers; known"):
        registry.build("associators", "dbscan")
    with pytest.raises(PluginError, match="no kind of plug-in 'asociator'; did you mean 'associators'"):
        registry.get("asociator", "mult")
    with pytest.raises(SpecError, match="mult: no option 'alpa'; did you mean 'alpha'"):
        registry.build("associators", "mult(alpa=0.1)")


def test_a_plug_in_that_came_after_the_installation_is_told_from_an_unknown_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a ``git pull``: setup.cfg names it, the entry points that pip wrote down do not."""
    assert out_of_step() == set()
    assert out_of_step(tmp_path) == set()  # a wheel: no checkout
    later = EntryPoint("later", "reidassoc_plugins.refiners.later:Later", "reidassoc.refiners")
    text = (CHECKOUT / "setup.cfg").read_text(encoding="utf-8")
    (tmp_path / "setup.cfg").write_text(text.replace("    agree = ", f"    later = {later.value}\n    agree = "))
    assert out_of_step(tmp_path) == {later}
    (tmp_path / "setup.cfg").write_text(text.replace("    agree = reidassoc", "    agree = elsewhere"))
    assert {point.value.partition(".")[0] for point in out_of_step(tmp_path)} == {
        "elsewhere_plugins",
        "reidassoc_plugins",
    }
    (tmp_path / "setup.cfg").write_text("[metadata]\nname = another\n")
    assert out_of_step(tmp_path) == set()
    monkeypatch.setattr(registry.lookup, "out_of_step", lambda: {later})
    with pytest.raises(PluginError, match=r"^no refiner 'later'; setup\.cfg has it, .* pip install -e \. again"):
        registry.build("refiners", "later")
    with pytest.raises(PluginError, match=r"setup\.cfg has it"):
        registry.kinds_of("later")


def test_a_docstring_is_broken_by_the_terminal_alone() -> None:
    shown = CliRunner().invoke(cli, ["show", "hdbscan"], env={"COLUMNS": "400"}).output
    assert "on the Euclidean distance of unit features, whose order is that of the cosine; each modality" in shown
    assert "\n>>> from reidassoc.testing import toy_features\n>>> Hdbscan()" in shown
    assert "    PluginError: the package infomap" in CliRunner().invoke(cli, ["show", "infomap"]).output


def test_a_file_s_plug_ins_are_shown(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE + FILE.replace("MyIdea", "Other").replace("0.0", "0.25"))
    shown = CliRunner().invoke(cli, ["show", str(tmp_path / "mine.py")])
    assert shown.exit_code == 0, shown.output
    assert "associator my_idea" in shown.output
    assert "0.25" in shown.output.partition("associator other")[2]


def test_a_broken_package_breaks_only_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    real = entry_points.installed
    broken = EntryPoint("broken", "no_such_module_anywhere:Thing", "reidassoc.associators")
    wrong = EntryPoint("wrong", "pathlib:Path", "reidassoc.associators")

    def with_broken(group: str) -> tuple[EntryPoint, ...]:
        return (*real(group), *(point for point in (broken, wrong) if point.group == group))

    monkeypatch.setattr(entry_points, "installed", with_broken)
    found = {entry.name: entry for entry in registry.entries("associators")}
    assert "ModuleNotFoundError" in found["broken"].problem
    assert "is no associator" in found["wrong"].problem
    assert found["mult"].problem == ""
    with pytest.raises(PluginError, match=r"associator 'broken' .* can't be loaded: ModuleNotFoundError"):
        registry.get("associators", "broken")
    shown = CliRunner().invoke(cli, ["list", "associator"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    assert "no_such_module_anywhere" in shown.output  # the reason, beside the plug-ins that load
    assert "mult" in shown.output.split()


def test_a_package_takes_no_name_of_ours_and_none_of_another_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Figures under the name `mult` are of what we ship, whatever is installed beside it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "strangers.py").write_text(FILE + FILE.replace("MyIdea", "Other"))
    (tmp_path / "plain.py").write_text("from reidassoc import Associator\n\nclass Plain(Associator):\n    ...\n")
    real, group = entry_points.installed, "reidassoc.associators"
    points = [("mult", "a:Mult"), ("idea", "strangers:MyIdea"), ("idea", "strangers:Other"), ("plain", "plain:Plain")]
    own = [EntryPoint(name, value, group) for name, value in points]
    monkeypatch.setattr(
        entry_points, "installed", lambda asked: (*own, *(real(asked))) if asked == group else real(asked)
    )
    assert registry.get("associators", "mult").__module__ == "reidassoc_plugins.associators.mult"
    problems = [(entry.name, entry.problem) for entry in registry.entries("associators") if entry.problem]
    assert [name for name, _ in problems] == ["idea", "idea", "mult", "plain"]
    assert problems[0][1] == "strangers:Other has the name 'idea', too: uninstall one of the packages"
    assert problems[1][1] == "strangers:MyIdea has the name 'idea', too: uninstall one of the packages"
    assert re.match(r"reidassoc \S+ has associator 'mult' already; its author must choose another", problems[2][1])
    assert problems[3][1] == "plain:Plain must be a frozen, keyword-only dataclass: its fields are its options"
    with pytest.raises(PluginError, match=r"associator 'idea' .* can't be loaded: strangers:Other has the name"):
        registry.build("associators", "idea")


def test_a_plugin_without_a_text_is_found_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that Cython has compiled."""
    compiled = dataclass(frozen=True, kw_only=True)(type("Compiled", (Associator,), {"__module__": "builtins"}))
    monkeypatch.setattr("builtins.Compiled", compiled, raising=False)
    own, real = EntryPoint("compiled", "builtins:Compiled", "reidassoc.associators"), entry_points.installed
    monkeypatch.setattr(entry_points, "installed", lambda group: (*real(group), *([own] if group == own.group else [])))
    entry = registry.find("associators", "compiled")
    assert (entry.cls, entry.problem, entry.text_hash) == (compiled, "", "")


def test_a_package_s_folder_is_told_from_a_name(tmp_path: Path) -> None:
    with pytest.raises(
        PluginError, match=r"is a folder: expected a \.py file, or the name of a plug-in that is installed"
    ):
        registry.named(str(tmp_path))


def test_a_pipe_gets_a_plugin_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    lines = CliRunner().invoke(cli, ["list", "associators"]).output.splitlines()
    shown = [line.split()[0] for line in lines if "MIT" in line]
    assert [name for name in shown if name in registry.names("associators")] == registry.names("associators")
