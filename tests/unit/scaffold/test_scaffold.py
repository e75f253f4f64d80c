"""What `reidassoc new` writes works as it is: one file, and a package installed into an environment of its own."""

from __future__ import annotations

import csv
import json
import os
import runpy
import subprocess
import sys
import venv
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.small import SMALL

import reidassoc as ra
from reidassoc import Association, Scene, registry
from reidassoc.cli import cli
from reidassoc.errors import PluginError
from reidassoc.recipe.choose import choose
from reidassoc.recipe.compose import compose
from reidassoc.scaffold import new
from reidassoc.testing import ContractError
from reidassoc.testing.check.diagnosis import diagnose
from reidassoc_plugins.associators.nearest import Nearest

KINDS = ("clusterer", "associator", "refiner", "objective", "network", "dataset")


BROKEN: dict[str, dict[str, object]] = {
    "clusterer": {"__call__": lambda *_, **__: None},
    "associator": {"__call__": lambda *_: None},
    "refiner": {"refine": lambda *_: None},
    "objective": {"__call__": lambda *_: {}},
    "network": {"build": lambda *_, **__: None},
    "dataset": {"trials": lambda _: []},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_a_healthy_plugin_of_that_name(kind: str, tmp_path: Path) -> None:
    (path,) = new(kind, f"my_{kind}_v2", out=tmp_path, package=False)
    assert path == tmp_path / f"my_{kind}_v2.py"
    (entry,) = registry.load_file(str(path))
    assert (entry.kind, entry.name) == (f"{kind}s", f"my_{kind}_v2")
    found = diagnose(entry, registry.build(entry.kind, entry.name))
    assert {finding.verdict for finding in found.findings} == {"ok"}, found.findings


def test_a_new_dataset_has_as_many_people_as_a_batch_takes(tmp_path: Path) -> None:
    """With fewer, every first run begins with a warning."""
    (path,) = new("dataset", "crowd", out=tmp_path, package=False)
    registry.load_file(str(path))
    stages = ra.load_recipe("mult/synthetic").stages
    assert registry.build("datasets", "crowd").people >= max(stage.identities for stage in stages)


def test_six_new_plugins_train_together(tmp_path: Path) -> None:
    for kind in KINDS:
        (path,) = new(kind, f"new_{kind}", out=tmp_path, package=False)
        registry.load_file(str(path))
    short = [
        (f"{stage}.{key}", value) for stage in ("intra", "cross") for key, value in (("epochs", 1), ("iterations", 2))
    ]
    recipe = choose(
        recipe="mult/synthetic",
        dataset="new_dataset",
        clusterer="new_clusterer",
        associator="new_associator",
        refiners=["new_refiner"],
        objectives=["new_objective"],
        network="new_network",
        changes=[*SMALL, *short],
    )
    result = ra.run(recipe, out=tmp_path / "run", device="cpu")
    assert set(result.protocols) == {"visible-to-infrared", "infrared-to-visible"}
    assert result.data["counts"] == {}


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_s_own_tests_pass_until_the_method_changes(kind: str, tmp_path: Path) -> None:
    files = new(kind, "my_idea", out=tmp_path)
    assert {str(path.relative_to(tmp_path / "my_idea")) for path in files} == {
        "reidassoc_my_idea.py", "tests/test_my_idea.py", "README.md", "pyproject.toml",
    }  # fmt: skip
    (entry,) = registry.load_file(str(files[0]))
    tests = runpy.run_path(str(files[1]))
    for name, test in tests.items():
        if name.startswith("test_"):
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # nothing that an author would have to look up
                test()
    registry.add("my_idea", changed(entry.cls, kind))
    with pytest.raises(AssertionError):
        tests["test_parity"]()
    registry.add("my_idea", type("Broken", (entry.cls,), BROKEN[kind]))
    with pytest.raises(ContractError):
        tests["test_contract"]()


@pytest.mark.parametrize("kind", KINDS)
def test_a_finished_file_becomes_a_package(kind: str, tmp_path: Path) -> None:
    """Its text as it is, found under its name and its companions' names; the parity test waits for its author."""
    (file,) = new(kind, "my_idea", out=tmp_path, package=False)
    other = new("associator" if kind == "clusterer" else "clusterer", "its_like", out=tmp_path, package=False)[0]
    file.write_text(file.read_text() + "\n\n" + other.read_text().replace("from __future__ import annotations\n", ""))
    files = new(kind, "my_idea", out=tmp_path, taken=file)
    assert files[0].read_text() == file.read_text()
    project = files[3].read_text()
    assert f'[project.entry-points."reidassoc.{kind}s"]\nmy_idea = "reidassoc_my_idea:MyIdea"\n' in project
    assert 'its_like = "reidassoc_my_idea:ItsLike"\n' in project
    registry.load_file(str(files[0]))
    tests = {name: test for name, test in runpy.run_path(str(files[1])).items() if name.startswith("test_")}
    with pytest.raises(pytest.fail.Exception, match="FILL IN"):
        tests.pop("test_parity")()
    for test in tests.values():
        test()


def test_what_to_do_after_a_package_was_made_of_a_file_is_said(tmp_path: Path) -> None:
    (file,) = new("associator", "my_idea", out=tmp_path, package=False)
    words = ["new", "associator", "my_idea", "--from", str(file), "--out", str(tmp_path)]
    done = CliRunner().invoke(cli, words)
    assert f"leave out --plugin {file} from now on" in done.output


def test_a_file_without_the_plugin_makes_no_package(tmp_path: Path) -> None:
    (file,) = new("associator", "my_idea", out=tmp_path, package=False)
    with pytest.raises(PluginError, match="holds no associator 'other', but associator 'my_idea'"):
        new("associator", "other", out=tmp_path, taken=file)
    with pytest.raises(PluginError, match="no plug-in file"):
        new("associator", "other", out=tmp_path, taken=tmp_path / "nothing.py")
    assert [path.name for path in tmp_path.iterdir()] == ["my_idea.py"]


def changed(cls: type, kind: str) -> type:
    """The method with something about it different: what its author will do."""

    def other_call(self: object, scene: Scene) -> Association:
        return Nearest()(scene)

    def other_init(self: object, **options: object) -> None:
        wanted: dict[str, dict[str, object]] = {
            "clusterer": {"neighbours": 1},
            "refiner": {"power": 0.1},
            "objective": {"temperature": 0.1},
            "dataset": {"people": 13},
        }
        cls.__init__(self, **{**options, **wanted[kind]})  # type: ignore[misc]

    def other_build(self: object, *, size: tuple[int, int]) -> object:
        module = cls.build(self, size=size)  # type: ignore[attr-defined]
        forward = module.forward
        module.forward = lambda images: {s: replace(out, z=2 * out.z) for s, out in forward(images).items()}
        return module

    changes = {"associator": {"__call__": other_call}, "network": {"build": other_build}}
    return type("Changed", (cls,), changes.get(kind, {"__init__": other_init}))


@pytest.mark.parametrize(("kind", "name"), [("associator", "ab"), ("dataset", "people_of_our_own_camera_network")])
def test_the_comments_of_a_package_s_readme_stand_below_each_other(kind: str, name: str, tmp_path: Path) -> None:
    new(kind, name, out=tmp_path)
    lines = (tmp_path / name / "README.md").read_text(encoding="utf-8").splitlines()
    commented = [line for line in lines if "  # " in line]
    assert len(commented) == 3
    assert len({line.index("  # ") for line in commented}) == 1


@pytest.mark.parametrize("name", ["MyIdea", "my-idea", "2nd", "a_b", "class", "my__idea", "", "../my_idea"])
def test_a_bad_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="no name for a plug-in"):
        new("associator", name, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_the_command_that_is_printed_next_fits_together(kind: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["new", kind, f"next_{kind}", "--file", "--out", str(tmp_path)])
    words = done.output.split("reidassoc run ")[1].split()
    said = dict(zip(words[::2], words[1::2], strict=True))
    registry.load_file(said.pop("--plugin"))
    parts = {option.removeprefix("--"): value for option, value in said.items()}
    several = {f"{part}s": [parts.pop(part)] for part in ("refiner", "objective") if part in parts}
    recipe = choose(**parts, **several)  # type: ignore[arg-type]
    compose(recipe)
    assert kind == "network" or recipe.network.name == "tiny"  # trains on a CPU, without a download
    package = new(kind, f"packed_{kind}", out=tmp_path)[0].parent
    readme = (package / "README.md").read_text(encoding="utf-8").split("reidassoc run ")[1].splitlines()[0]
    assert readme == " ".join(words[2:]).replace(f"next_{kind}", f"packed_{kind}")


@pytest.mark.parametrize(
    ("kind", "name"),
    [("associator", "field"), ("clusterer", "clustering"), ("objective", "bank"), ("dataset", "pair")],
)
def test_a_name_whose_class_the_file_uses_is_refused(kind: str, name: str, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="which the file itself uses"):
        new(kind, name, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "package"), [("torch", False), ("typing", False), ("plugins", True)])
def test_a_module_that_would_hide_another_is_refused(name: str, package: bool, tmp_path: Path) -> None:
    """`torch.py` breaks whatever starts in its folder; `reidassoc_plugins` is ours."""
    with pytest.raises(PluginError, match=r"there is a module .* already"):
        new("clusterer", name, out=tmp_path, package=package)
    assert not list(tmp_path.iterdir())
    assert new("clusterer", name, out=tmp_path, package=not package)


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"reidassoc .* has associator 'mult' already"):
        new("associator", "mult", out=tmp_path)
    (tmp_path / "my_idea.py").write_text("precious")
    with pytest.raises(PluginError, match="exists already"):
        new("associator", "my_idea", out=tmp_path, package=False)
    assert (tmp_path / "my_idea.py").read_text() == "precious"
    (tmp_path / "file").write_text("")
    with pytest.raises(PluginError, match="can't write"):
        new("associator", "my_idea", out=tmp_path / "file")


def test_an_installed_package_is_found_checked_and_run(tmp_path: Path) -> None:
    """In a clean environment over this one's big packages, with pip, as a stranger's would be."""
    package = new("associator", "my_idea", out=tmp_path)[0].parent
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "-q",
        "--no-deps",
        "--no-build-isolation",
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def ran(*command: str) -> str:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    place = ran(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    below = [entry for entry in sys.path if entry.endswith("site-packages")]
    # addsitedir reads the .pth files there, by which editable installs are found, too.
    Path(place, "below.pth").write_text("".join(f"import site; site.addsitedir({entry!r})\n" for entry in below))
    ran(*install, str(package))
    settings = [word for path, value in SMALL for word in ("--set", f"{path}={value}")]
    tiny = ["--dataset", "synthetic(size='tiny')", "--device", "cpu", *settings]
    commands = [
        ["list", "associators"],
        ["check", "my_idea"],
        ["run", "--associator", "my_idea(power=3.0)", *tiny, "--out", "run"],
        ["features", "run", "--out", "end.npz"],
        ["lab", "end.npz", "--associator", "my_idea,nearest", "--format", "csv", "--out", "lab.csv"],
    ]
    # One process for all of them: importing torch takes longer than anything else here.
    script = "import json, sys\nfrom reidassoc.cli import cli\n"
    script += "for words in json.loads(sys.argv[1]): cli.main(words, standalone_mode=False)"
    said = ran(str(python), "-c", script, json.dumps(commands))
    row = next(line for line in said.splitlines() if line.split()[:1] == ["my_idea"])
    assert "reidassoc-my-idea 0.1.0" in row
    assert row.rstrip().endswith("MIT")
    assert "keeps its contract" in said
    assert json.loads((tmp_path / "run" / "result.json").read_text())["method"]["associator"] == "my_idea(power=3.0)"
    with (tmp_path / "lab.csv").open(newline="") as file:
        scored = {row["associator"]: row["problem"] for row in csv.DictReader(file)}
    assert scored == {"my_idea": "", "nearest": ""}
