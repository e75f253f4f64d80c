"""The command line as a person meets it: exit codes, one-line errors, nothing half-written, signals."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from support.small import SMALL

from reidassoc import registry
from reidassoc.cli import cli, main
from reidassoc.cli.options import GROUPS
from reidassoc.cli.output import protocol_table, result_table, transductive_table
from reidassoc.data.export import export
from reidassoc.errors import DataError
from reidassoc.runs.folder import RunFolder
from reidassoc.runs.result import Result

SETTINGS = [word for path, value in SMALL for word in ("--set", f"{path}={value}")]
TINY = ["--dataset", "synthetic(size='tiny')", "--device", "cpu", *SETTINGS]


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "reidassoc", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=environment(),
    )


Typed = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Typed]:
    """As `command`, in this process: what ends before any work needs no fresh Python."""

    def call(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(cwd)
        monkeypatch.setenv("COLUMNS", "160")
        monkeypatch.setattr(sys, "argv", ["reidassoc", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, said.out, said.err)

    before = signal.getsignal(signal.SIGTERM)
    yield call
    signal.signal(signal.SIGTERM, before)


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "160"}


def metrics(folder: Path) -> list[dict[str, object]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in RunFolder(folder).metrics]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    place = tmp_path_factory.mktemp("cli")
    return place / "runs" / "mult-synthetic-1", command("run", "--associator", "mult", *TINY, cwd=place)


def test_run_prints_a_table_and_the_folder(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = ran
    assert done.returncode == 0, done.stderr
    assert "all-search single-shot" in done.stdout
    assert "pair precision, across modalities" in done.stdout
    assert done.stdout.rstrip().endswith("Run folder: runs/mult-synthetic-1")
    assert "epoch   4  cross" in done.stderr
    assert (folder / "log.txt").read_text().count("epoch ") == 5


def test_evaluate_prints_the_same_figures(ran: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, _ = ran
    done = command("evaluate", str(folder), "--json", cwd=folder.parent)
    assert json.loads(done.stdout)["protocols"] == json.loads((folder / "result.json").read_text())["protocols"]
    shown = command("evaluate", str(folder), "--transductive", "cmfp(k=4)", cwd=folder.parent).stdout
    assert "mINP" in shown
    assert "transductive" in shown.split("cmfp(k=4)")[1]


def test_brackets_in_names_are_shown_as_they_are(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders, notes and a manifest's protocols are the user's; rich takes [b] for an order to print bold."""
    monkeypatch.setenv("COLUMNS", "160")
    data = json.loads((finished / "result.json").read_text())
    figures = next(iter(data["protocols"].values()))
    protocols, best = {"all [/b]": figures}, next(iter(data["best_epoch_oracle"].values()))
    result_table(Result(Path("runs/[b]"), {**data, "protocols": protocols, "best_epoch_oracle": {"all [/b]": best}}))
    protocol_table(protocols, "title [/b]", ["no such file: [/b]"])
    transductive_table(protocols, {"cmfp": {"protocols": protocols}})
    printed = capsys.readouterr().out
    assert "Run folder: runs/[b]\n" in printed
    assert "no such file: [/b]\n" in printed
    assert printed.count("all [/b]") == 4


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_is_resumed_to_the_same_end(
    ran: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path, ending: signal.Signals
) -> None:
    first, _ = ran
    process = subprocess.Popen(
        [sys.executable, "-m", "reidassoc", "run", "--associator", "mult", *TINY, "--out", "cut"],
        cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (tmp_path / "cut" / "checkpoints" / "epoch_002.pt").exists():
        time.sleep(0.02)
    time.sleep(0.05 * (os.getpid() % 10))  # somewhere in the third epoch or later
    process.send_signal(ending)
    _, said = process.communicate(timeout=60)
    if ending is signal.SIGINT and process.returncode != 0:
        assert process.returncode == 130, said
        assert "go on with: reidassoc run --resume cut" in said
        assert "Traceback" not in said
    done = command("run", "--resume", "cut", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert metrics(tmp_path / "cut") == metrics(first)


BAD = {
    "unknown plug-in": (["run", "--associator", "malt"], "no associator 'malt'; did you mean 'mult'"),
    "unknown option": (["run", "--associator", "mult(alpa=1)"], "mult: no option 'alpa'; did you mean 'alpha'"),
    "wrong type": (["run", "--set", "associator.alpha=much"], "mult: alpha must be float"),
    "out of range": (["run", "--clusterer", "dbscan(eps=7)"], "dbscan: eps must be float"),
    "unknown dataset": (["run", "--dataset", "sysu"], "no dataset 'sysu'; did you mean 'sysu_mm01'"),
    "missing root": (["run", "--dataset", "sysu_mm01", "--data", "nowhere", "--weights", "none"], "nowhere"),
    "empty root": (["run", "--dataset", "regdb", "--data", "empty", "--weights", "none"], "empty"),
    "no device": (["run", "--device", "cuda:7"], "device 'cuda:7' is not there"),
    "odd device": (["run", "--device", "tpu"], "no device 'tpu'; expected auto, cpu, cuda or cuda:N"),
    "odd set": (["run", "--set", "associator.alpha"], "expected PATH=VALUE"),
    "no run": (["evaluate", "nowhere"], "nowhere is no run folder"),
    "no plug-in file": (["run", "--plugin", "none.py"], "no plug-in file none.py"),
    "resume and more": (
        ["run", "--resume", "x", "--seed", "0"],
        "--resume goes on with the folder's own recipe; leave out: seed",
    ),
    "resume nothing": (["run", "--resume", "empty"], "empty is no run folder"),
    "new name taken": (["new", "associator", "mult"], "has associator 'mult' already"),
    "new without a name": (["new", "associator", "My-Idea"], "no name for a plug-in: 'My-Idea'"),
    "check nothing": (["check", "none.py"], "no plug-in file none.py"),
    "no such option": (["run", "--asociator", "mult"], "No such option"),
    "no such command": (["rum"], "No such command 'rum'; did you mean 'run'?; there are: run, evaluate, "),
    "a word too many": (["run", "mult"], "got 'mult'; parts are named by options, as in --associator mult"),
    "no data": (["run", "--dataset", "regdb"], "option 'root' is required, as in regdb(root=…), or --data FOLDER"),
    "unknown step": (
        ["evaluate", "nowhere", "--transductive", "cmpf"],
        "no transductive step 'cmpf'; did you mean 'cmfp'",
    ),
    "unknown kind": (["list", "associaters"], "no kind of plug-in 'associaters'; did you mean 'associators'"),
    "unknown name": (["show", "malt"], "no plug-in 'malt'; did you mean 'mult'"),
    "no features": (["associate", "none.npz", "--out", "o.npz"], "no feature file none.npz"),
    "no weights": (["run", "--network", "two_stream(depth=18, weights='none.pt')", "--out", "r"], "none.pt"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_in_one_line(name: str, typed: Typed, tmp_path: Path) -> None:
    arguments, message = BAD[name]
    (tmp_path / "empty").mkdir()
    done = (command if name == "unknown plug-in" else typed)(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len([line for line in done.stderr.splitlines() if line.startswith("Error")]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]  # nothing half-written


def spoilt_checkpoint(folder: Path) -> list[str]:
    for path in RunFolder(folder).checkpoints():
        path.write_bytes(path.read_bytes()[:1000])
    return ["run", "--resume", str(folder)]


def spoilt_checkpoint_to_evaluate(folder: Path) -> list[str]:
    return ["evaluate", spoilt_checkpoint(folder)[-1]]


def another_recipe(folder: Path) -> list[str]:
    path = folder / "recipe.yaml"
    path.write_text(path.read_text().replace("seed: 0", "seed: 5"))
    return ["run", "--resume", str(folder)]


def unreadable_images(folder: Path) -> list[str]:
    """A test image that is cut off: training would leave one out, evaluation refuses it."""
    tree = folder.parent / "tree"
    export(
        registry.build("datasets", "synthetic(size='tiny', identities=4, images=2, test_identities=2)"),
        tree,
        layout="manifest",
    )
    with open(tree / "manifest.csv", encoding="utf-8") as file:
        tested = next(row["path"] for row in csv.DictReader(file) if row["split"] != "train")
    (tree / tested).write_bytes((tree / tested).read_bytes()[:100])
    return [
        "run",
        "--recipe",
        "mult/synthetic",
        "--dataset",
        "manifest",
        "--data",
        str(tree),
        "--out",
        str(folder.parent / "new"),
    ]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoilt_checkpoint, "epoch_005.pt can't be read as a checkpoint"),
        (spoilt_checkpoint_to_evaluate, "epoch_005.pt can't be read as a checkpoint"),
        (
            another_recipe,
            "the checkpoint was written under another recipe; resume with the run folder's own recipe.yaml",
        ),
        (unreadable_images, "images can't be read, and evaluation needs every image: "),
    ],
)
def test_what_is_spoilt_on_the_disk_ends_in_one_line_and_stays_as_it_was(
    spoil: Callable[[Path], list[str]], message: str, finished: Path, typed: Typed, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    arguments = spoil(folder)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    done = typed(*arguments, "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert len([line for line in done.stderr.splitlines() if line.startswith("Error")]) == 1
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and "cache" not in path.parts}
    assert after == before


def test_show_cuts_no_default_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    printed = CliRunner().invoke(cli, ["show", "vit"]).output
    assert "…" not in printed
    assert "vit_base_patch16" in printed


@pytest.mark.parametrize("command", [["associate", "no.npz"], ["features", "no_run"]])
def test_a_folder_that_is_not_there_is_said_before_any_work(command: list[str], tmp_path: Path) -> None:
    out = tmp_path / "nowhere" / "out.npz"
    done = CliRunner().invoke(cli, [*command, "--out", str(out)])
    assert isinstance(done.exception, DataError)
    assert f"can't write {out}: there is no folder {out.parent}" in str(done.exception)


def test_associate_labels_anybodys_features(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.nn.functional.normalize(torch.randn(6, 16, generator=generator), dim=1)
    identity = torch.arange(6).repeat_interleave(8)
    arrays = {
        m: (3 * (centres[identity] + 0.05 * torch.randn(48, 16, generator=generator))).numpy()
        for m in ("visible", "infrared")
    }
    known = {f"identity_{m}": identity.numpy() for m in arrays}
    np.savez(tmp_path / "f.npz", **arrays, **known)
    done = command(
        "associate",
        "f.npz",
        "--clusterer",
        "dbscan(k1=8)",
        "--associator",
        "mult(k1=8)",
        "--out",
        "o.npz",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"cluster \d+\.\d\d s, associate \d+\.\d\d s; peak memory \d+\.\d\d GiB\n", done.stdout)
    quality = re.search(r"pair precision, across modalities +(\S+) +(\S+)", done.stdout)
    assert quality is not None
    assert quality.groups() == ("100.0", "100.0")
    with np.load(tmp_path / "o.npz") as labels:
        assert set(labels.files) == {"own_visible", "cross_visible", "own_infrared", "cross_infrared"}
        assert all(labels[name].dtype == np.int64 and labels[name].shape == (48,) for name in labels.files)
        assert (labels["own_visible"] == identity.numpy()).all()  # numbered by their smallest member
        assert (labels["cross_infrared"] == identity.numpy()).all()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"visible": np.eye(4, dtype=np.float32)}, "has no array 'infrared'"),
        (
            {"visible": np.eye(4, dtype=np.float32), "infrared": np.eye(4)[0].astype(np.float32)},
            "'infrared' must be (N, D) floats, got (4,) float32",
        ),
        (
            {"visible": np.eye(4, dtype=np.float32), "infrared": np.full((2, 4), np.nan, np.float32)},
            "'infrared' has NaN or infinite values in 2 of",
        ),
        ({"visible": np.eye(4, dtype=np.float32), "infrared": np.eye(5, dtype=np.float32)}, "4 wide, infrared ones 5"),
        (
            {
                "visible": np.eye(2, dtype=np.float32),
                "infrared": np.eye(2, dtype=np.float32),
                "camera_visible": np.zeros(3, int),
            },
            "camera_visible",
        ),
        ({"visible": np.array([{}], dtype=object), "infrared": np.eye(2, dtype=np.float32)}, "can't be read as .npz"),
    ],
)
def test_bad_features_are_named(arrays: dict[str, np.ndarray], message: str, typed: Typed, tmp_path: Path) -> None:
    np.savez(tmp_path / "f.npz", **arrays)
    done = typed("associate", "f.npz", "--out", "o.npz", cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "o.npz").exists()


def test_a_plugin_file_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from reidassoc import Association, Associator, Pair, Scene, SoftLabels\n"
        "from reidassoc_plugins.networks.tiny import Tiny\n\n"
        "class MyNet(Tiny):\n"
        '    """Tiny by another name."""\n\n'
        "@dataclass(frozen=True, kw_only=True)\n"
        "class FirstCluster(Associator):\n"
        '    """Puts everything into the first cluster."""\n\n'
        "    def __call__(self, scene: Scene) -> Association:\n"
        "        own = scene.clustering.own\n"
        "        return Association(cross=Pair.build(\n"
        "            lambda m: SoftLabels.one_hot(0 * own[m].labels, own[m.other].count)))\n"
    )
    listed = command("list", "associators", "--plugin", "mine.py", cwd=tmp_path)
    assert "Puts everything into the first cluster." in listed.stdout
    parts = ["--associator", "first_cluster", "--network", "my_net"]
    done = command("run", "--plugin", "mine.py", *parts, *TINY, "--out", "r", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r" / "result.json").read_text())["method"]["associator"] == "first_cluster"
    folder = str(tmp_path / "r")
    forgotten = CliRunner().invoke(cli, ["evaluate", folder, "--device", "cpu"])
    assert "in a file of yours: --plugin FILE" in str(forgotten.exception)
    told = CliRunner().invoke(cli, ["evaluate", folder, "--device", "cpu", "--plugin", str(tmp_path / "mine.py")])
    assert "all-search single-shot" in told.output


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, each in group.commands.items():
        yield (*path, name), each
        if isinstance(each, click.Group):
            yield from commands(each, (*path, name))


COMMANDS = dict(commands(cli))


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_every_help_shows_an_example_and_explains_each_option(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(cli, [*path, "--help"]).output
    assert "Example" in shown
    assert "  reidassoc " in shown
    assert not re.search(r" (TEXT|PATH|INTEGER)( |$)", shown)
    assert ("Examples:" in shown) == (shown.count("\n    reidassoc ") > 1)
    for option in COMMANDS[path].params:
        if isinstance(option, click.Option):
            assert option.help, option.name
            if option.multiple and option.name not in {
                "refiners",
                "objectives",
                "associators",
            }:  # theirs says: likewise
                assert "may be repeated" in option.help, option.name
            assert option.make_metavar(click.Context(cli)) not in {"TEXT", "PATH", "INTEGER", "INTEGER RANGE"}, (
                option.name
            )


def test_the_front_page_lists_every_command_whole_and_in_a_group() -> None:
    shown = CliRunner().invoke(cli, ["--help"]).output
    assert sorted(name for names in GROUPS.values() for name in names) == sorted(cli.commands)
    assert "Others" not in shown
    assert "..." not in shown.partition("Train and evaluate:")[2]


@pytest.mark.parametrize(("before", "after"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_wait_asleep_unless_the_user_says_otherwise(
    before: str | None, after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs on the same cores would otherwise all but stop each other; OpenMP reads it when torch is loaded, after this."""
    monkeypatch.setattr(sys, "argv", ["reidassoc", "--version"])
    monkeypatch.setenv("OMP_WAIT_POLICY", before or "")  # so that it is put back at the end
    if before is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    with contextlib.suppress(SystemExit):
        main()
    assert os.environ["OMP_WAIT_POLICY"] == after
