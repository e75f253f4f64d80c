"""Hostile input for everything that reads what others wrote: it must be read, or refused in one line, and write nothing elsewhere.

``tests/unit/files/test_fuzz.py`` runs some hundreds of inputs, this file as many as asked for:

    python tests/support/fuzzing.py --examples 2000
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from reidassoc import registry
from reidassoc.bench.plan import read_plan
from reidassoc.data.images import read_image
from reidassoc.data.tiles import pack
from reidassoc.engine import checkpoint
from reidassoc.engine.optim import build_optimiser
from reidassoc.errors import ReidassocError
from reidassoc.files.features import read_features
from reidassoc.recipe.compose import compose
from reidassoc.recipe.load import load_recipe
from reidassoc.recipe.model import Optimiser
from reidassoc.recipe.override import override
from reidassoc.registry.options import construct
from reidassoc.registry.spec import Spec, parse_value
from reidassoc.report.page_writer import write_report
from reidassoc.tables.formats import as_csv, as_html, latex, markdown
from reidassoc.tables.read import read_results
from reidassoc.tables.table import compare_results
from reidassoc.testing import toy_scene
from reidassoc.types import Modality
from reidassoc.weights import read_state

WRITES = (
    "open",
    "os.mkdir",
    "os.rename",
    "os.remove",
    "os.rmdir",
    "os.link",
    "os.symlink",
    "os.truncate",
    "shutil.rmtree",
)
RUNS = ("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect", "pickle.find_class")


class Guard:
    """Notes, while it is on, what writes outside of one folder, starts a program, opens a connection or unpickles."""

    def __init__(self) -> None:
        self.inside: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.inside is None:
            return
        if event in RUNS:
            self.seen.append(f"{event} {str(arguments)[:100]}")
        elif event in WRITES:
            if event == "open" and not (
                isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            ):
                return
            paths = [str(a) for a in arguments[:2] if isinstance(a, (str, bytes, os.PathLike))]
            for path in paths[: 1 if event == "open" else 2]:
                if not Path(os.path.realpath(path)).is_relative_to(self.inside):
                    self.seen.append(f"{event} {path}")

    @contextlib.contextmanager
    def on(self, folder: Path) -> Iterator[None]:
        self.inside, self.seen = Path(os.path.realpath(folder)), []
        try:
            yield
        finally:
            self.inside = None
        assert not self.seen, f"input made it do this: {self.seen[:3]}"


GUARD = Guard()

# Hostile values, as YAML and specs may hold them.
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=12),
    st.sampled_from([
        "", "..", "../../x", "/etc/passwd", "mult", "mult/synthetic", "dbscan(eps=2)", "dbscan(eps=nan)", "f(",
        "none", "\0", "a\nb",
        "synthetic(size='tiny')", "[red]x[/red]", "<script>", "é" * 300, "1e999", -1, 0, 2**63, 10**400, "9" * 5000,
    ]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=8,
)


def paths_of(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a nest of mappings and lists."""
    found = [place] if place else []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += paths_of(inner, (*place, key))
    return found


@st.composite
def changed(draw: st.DrawFn, base: Any) -> str:
    """YAML of a nest with some values replaced, removed or added; sometimes as text with some characters changed."""
    data = yaml.safe_load(yaml.safe_dump(base))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.sampled_from(paths_of(data) or [()]))
        if not place:
            break
        inner = data
        for key in place[:-1]:
            inner = inner[key]
        what = draw(st.sampled_from(["replace", "remove", "add"]))
        if what == "replace":
            inner[place[-1]] = draw(VALUES)
        elif what == "remove":
            del inner[place[-1]]
        elif isinstance(inner, dict):
            inner[draw(st.text(max_size=8))] = draw(VALUES)
    text = yaml.safe_dump(data, allow_unicode=draw(st.booleans()))
    if draw(st.integers(0, 3)) == 0:
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(st.text(max_size=6)) + text[start + draw(st.integers(0, 12)) :]
    return text


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Bytes with some changed, cut out or put in."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        what = draw(st.sampled_from(["change", "cut", "end", "insert", "copy"]))
        if what == "change" and data:
            data[at] = draw(st.integers(0, 255))
        elif what == "cut":
            del data[at : at + draw(st.integers(1, 64))]
        elif what == "end":
            del data[at:]
        elif what == "insert":
            data[at:at] = draw(st.binary(max_size=16))
        else:
            data[at : at + 8] = data[: min(8, len(data))]
    return bytes(data)


@st.composite
def arrays(draw: st.DrawFn, names: tuple[str, ...]) -> dict[str, Any]:
    """Arrays of any kind and shape under the names that a file may hold."""
    found = {}
    for name in draw(st.lists(st.sampled_from(names), unique=True, max_size=3)):
        shape = draw(st.sampled_from([(), (0,), (4,), (4, 0), (0, 3), (4, 3), (4, 3, 2), (5, 3), (4, 4)]))
        kind = draw(
            st.sampled_from(["float32", "float64", "float16", "int64", "uint8", "bool", "U3", "complex64", "M8[s]"])
        )
        value = draw(st.sampled_from([0, 1, -1, 3, 2**31, float("nan"), float("inf")]))
        with np.errstate(all="ignore"), contextlib.suppress(ValueError, OverflowError, TypeError):
            found[name] = np.full(shape, value).astype(kind)
    return found


def corrupt(whole: dict[str, Any]) -> st.SearchStrategy[Any]:
    """An archive with its bytes damaged, or some of its arrays replaced."""
    return damaged(npz(**whole)) | arrays(tuple(whole)).map(lambda found: {**whole, **found})


@dataclass(frozen=True)
class Target:
    """What reads, and what it is given to read."""

    inputs: st.SearchStrategy[Any]
    read: Callable[[Any, Path], object]


def recipe(text: str, folder: Path) -> None:
    (folder / "recipe.yaml").write_text(text, encoding="utf-8")
    compose(load_recipe(str(folder / "recipe.yaml")))


def change(pair: tuple[str, str], folder: Path) -> None:
    compose(override(load_recipe("mult/synthetic"), [(pair[0], parse_value(pair[1]))]))


def spec(text: str, folder: Path) -> None:
    chosen = Spec.parse(text)
    for kind in ("clusterers", "associators", "datasets", "networks"):
        with contextlib.suppress(ReidassocError):
            construct(registry.get(kind, chosen.name), chosen.options, chosen.name)


def grid(text: str, folder: Path) -> None:
    (folder / "grid.yaml").write_text(text, encoding="utf-8")
    read_plan(folder / "grid.yaml")


def manifest(text: str, folder: Path) -> None:
    (folder / "manifest.csv").write_text(text, encoding="utf-8")
    data = registry.build("datasets", Spec("manifest", {"root": str(folder)}))
    for records in (*data.train(), *data.test()):
        for row in range(min(2, len(records))):
            with contextlib.suppress(ReidassocError):
                records.source.load(row)
    data.trials()


def state(data: bytes, folder: Path) -> None:
    (folder / "epoch_001.pt").write_bytes(data)
    network = torch.nn.Linear(3, 2)
    found = checkpoint.read(folder / "epoch_001.pt", torch.device("cpu"))
    checkpoint.refuse_other_recipe(found, "digest")
    checkpoint.restore(checkpoint.State(network, build_optimiser(network.parameters(), Optimiser())), found)


def nested_state(value: dict[str, Any], folder: Path) -> None:
    held = io.BytesIO()
    torch.save({**CHECKPOINT, **value}, held)
    state(held.getvalue(), folder)


def weights(data: tuple[str, bytes], folder: Path) -> None:
    (folder / f"weights{data[0]}").write_bytes(data[1])
    read_state(folder / f"weights{data[0]}")


def feature_file(data: tuple[str, bytes], folder: Path) -> None:
    (folder / f"features{data[0]}").write_bytes(data[1])
    read_features(folder / f"features{data[0]}")


def feature_arrays(found: dict[str, Any], folder: Path) -> None:
    feature_file((".npz", npz(**found)), folder)


def label_file(data: bytes | dict[str, Any], folder: Path) -> None:
    (folder / "labels.npz").write_bytes(data if isinstance(data, bytes) else npz(**data))
    from_file = registry.build("associators", Spec("from_file", {"path": str(folder / "labels.npz")}))
    from_file(toy_scene())


def image(data: bytes, folder: Path) -> None:
    (folder / "image.png").write_bytes(data)
    read_image(folder / "image.png")


def result(text: str, folder: Path) -> None:
    (folder / "cell.json").write_text(text, encoding="utf-8")
    table = compare_results(read_results([folder / "cell.json"]), allow=True)
    for form in (markdown, latex, as_html, as_csv):
        form(table)


def run_folder(changed: tuple[str, Any], folder: Path) -> None:
    name, value = changed
    (folder / "labels").mkdir()
    (folder / "result.json").write_text(json.dumps({**RESULT, "queries": {}}), encoding="utf-8")
    (folder / "metrics.jsonl").write_text(json.dumps(ROW), encoding="utf-8")
    (folder / "exhibits.npz").write_bytes(npz(**EXHIBITS))
    (folder / "labels" / "epoch_000.npz").write_bytes(npz(**EPOCH))
    if isinstance(value, str):
        (folder / name).write_text(value, encoding="utf-8")
    else:
        (folder / name).write_bytes(value if isinstance(value, bytes) else npz(**value))
    write_report([folder], folder / "page.html")


def as_json(text: str) -> str:
    """YAML as JSON, where it can be; else as it is."""
    try:
        return json.dumps(yaml.safe_load(text), default=str)
    except (yaml.YAMLError, ValueError, TypeError):
        return text


def npz(**found: Any) -> bytes:
    held = io.BytesIO()
    np.savez(held, **found)
    return held.getvalue()


def saved(image_format: str) -> bytes:
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 6, 3), dtype=np.uint8)).save(held, image_format)
    return held.getvalue()


def torch_bytes(value: Any) -> bytes:
    held = io.BytesIO()
    torch.save(value, held)
    return held.getvalue()


def safe_bytes(**found: torch.Tensor) -> bytes:
    from safetensors.torch import save

    return save(found)


def bomb() -> bytes:
    """An .npz file of a few kilobytes that unpacks to gigabytes."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as file:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (2**20, 2**10)})
        file.writestr("visible.npy", header.getvalue() + bytes(2**24))
    return held.getvalue()


RECIPE = load_recipe("mult/synthetic").to_yaml()
GRID = {
    "name": "x", "recipe": "mult/synthetic", "set": {"cross.epochs": 2}, "seeds": [0, 1], "protocol": "all-search single-shot",
    "methods": {"a": {"associator": "nearest"}, "b": {"refiners": ["mix(beta=0.7)"], "set": {"clusterer.eps": 0.5}}},
    "overrides": {"weak": {"clusterer.eps": 0.4}}, "datasets": ["synthetic(size='tiny')"], "plugins": [],
}  # fmt: skip
MANIFEST = """path,modality,identity,camera,split,tracklet
a.png,visible,1,1,train,1
b.png,infrared,1,3,train,
c.png,visible,2,1,query,
d.png,infrared,2,3,gallery,
"""
FEATURES = {m: np.eye(4, 3, dtype=np.float32) for m in ("visible", "infrared")}
NAMES = tuple(
    f"{name}{m}" for m in ("visible", "infrared") for name in ("", "camera_", "index_", "parts_", "identity_")
)
LABELS = tuple(f"{space}_{m}" for m in ("visible", "infrared") for space in ("own", "cross"))
MATCHES = {f"cross_{m}": np.zeros(len(toy_scene().features[m]), np.int64) for m in Modality}
CHECKPOINT = {
    "format": 1, "recipe": "digest", "epoch": 1, "optimiser_step": 4, "network": torch.nn.Linear(3, 2).state_dict(),
    "optimiser": build_optimiser(torch.nn.Linear(3, 2).parameters(), Optimiser()).state_dict(),
    "targets": {"table": {"visible|visible": (torch.eye(2), torch.ones(2))}, "prototypes": {"visible": torch.eye(2)}},
    "counts": {"x": 1}, "heads": {}, "losses": [torch.ones(2), torch.ones(2)],
}  # fmt: skip
CELLS = ("../x.png", "/etc/passwd", "C:\\x", "a\0b", "visible", "infrared", "query", "gallery", "train", "-1", "9" * 30, "9" * 5000,
         "٣", "²", '"', "", "a.png")  # fmt: skip
LINES = st.lists(st.lists(st.sampled_from(CELLS) | st.text(max_size=6), max_size=6).map(",".join), max_size=4).map(
    "\n".join
)
RESULT = json.loads(
    (Path(__file__).resolve().parents[2] / "benchmarks/results/synthetic/mult-0.json").read_text(encoding="utf-8")
)
RESULT |= {"queries": {"all-search single-shot": {"precision": [0.5, None, 1.0], "person": [1, 1, 2]}}}
ROW = {
    "epoch": 0, "stage": "cross", "losses": {"loss": 1.0}, "clusters": {"visible": 2, "infrared": 2}, "seconds": {"train": 1.5},
    "labels": {"visible/precision_cross": 0.5, "visible/recall_cross": 0.5, "visible/ari": 0.1},
    "retrieval": {"all-search single-shot": {"rank1": {"mean": 5.0, "std": 0.0}, "mAP": {"mean": 5.0, "std": 0.0}}},
}  # fmt: skip
IMAGES = {
    "identity": np.array([1, 1, 2], np.int32), "camera": np.array([1, 2, 1], np.int32), "shown": np.array([0, 2], np.int32),
    "tiles": pack(torch.zeros(2, 3, 64, 32, dtype=torch.uint8), tile=(64, 32), quality=80),
}  # fmt: skip
LEADERS = {
    "query": np.array([0, 2], np.int32), "nearest": np.array([[[0, 2, -1], [2, 0, -1]]], np.int32), "side": np.array("infrared"),
}  # fmt: skip
EXHIBITS = {f"{part}/{m}/{key}": value for part in ("train", "test") for m in Modality for key, value in IMAGES.items()}
EXHIBITS |= {f"leaders/all-search single-shot/{key}": value for key, value in LEADERS.items()}
EXHIBITS |= {"tile": np.array([64, 32], np.int32)}
SCORES = {
    f"all-search single-shot/{key}": value
    for key, value in {
        "average_precision": np.ones((1, 3), np.float32), "first": np.ones((1, 3), np.int32),
        "query": np.arange(3, dtype=np.int32), "person": np.array([0, 0, 1], np.int32),
    }.items()
}  # fmt: skip
EPOCH = {f"{space}_{m}": np.array([0, 0, 1]) for space in ("own", "cross") for m in Modality}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**60) | st.floats() | st.text(max_size=4) | st.just(torch.ones(2)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=5,
)

TARGETS: dict[str, Target] = {
    "specs": Target(
        st.text(max_size=40)
        | st.builds("{}({}={!r})".format, st.sampled_from(["dbscan", "mult", "manifest", "two_stream", "kmeans", "x"]),
                    st.sampled_from(["eps", "alpha", "root", "depth", "x", "size"]), SCALARS),
        spec,
    ),
    "changes": Target(
        st.tuples(
            st.sampled_from(["associator.alpha", "clusterer.eps", "cross.epochs", "size", "dataset.size", "network.width", "seed",
                             "x.y",
                             "cross.optimiser.learning_rate", "cross.refiners", "extract_batch", "dataset",
                             ""]) | st.text(max_size=8),
            st.text(max_size=10) | SCALARS.map(repr) | VALUES.map(str),
        ),
        change,
    ),
    "recipes": Target(changed(yaml.safe_load(RECIPE)), recipe),
    "grids": Target(changed(GRID), grid),
    "manifests": Target(LINES.map(lambda text: MANIFEST + text) | st.text(max_size=80) | damaged(MANIFEST.encode()).map(
        lambda data: data.decode("utf-8", "replace")), manifest),
    "checkpoints": Target(damaged(torch_bytes(CHECKPOINT)), state),
    "checkpoint values": Target(st.dictionaries(st.sampled_from(sorted(CHECKPOINT)), PLAIN, min_size=1, max_size=2), nested_state),
    "weights": Target(
        st.tuples(st.just(".pt"), damaged(torch_bytes({"state_dict": {"a": torch.ones(3)}})))
        | st.tuples(st.just(".safetensors"), damaged(safe_bytes(a=torch.ones(3)))),
        weights,
    ),
    "feature files": Target(
        st.tuples(st.just(".npz"), damaged(npz(**FEATURES)) | st.just(bomb()))
        | st.tuples(st.just(".safetensors"), damaged(safe_bytes(**{k: torch.from_numpy(v) for k, v in FEATURES.items()}))),
        feature_file,
    ),
    "feature arrays": Target(arrays(NAMES).map(lambda found: {**found, **FEATURES}) |
                             arrays(NAMES).map(lambda found: {**FEATURES, **found}), feature_arrays),
    "label files": Target(damaged(npz(**MATCHES)) | arrays(LABELS).map(lambda found: {**MATCHES, **found}), label_file),
    "images": Target(st.sampled_from(["PNG", "JPEG", "BMP"]).flatmap(lambda kind: damaged(saved(kind))), image),
    "results": Target(changed(RESULT).map(as_json), result),
    "run folders": Target(
        st.tuples(st.just("metrics.jsonl"), changed(ROW).map(as_json))
        | st.tuples(st.just("result.json"), changed(RESULT).map(as_json))
        | st.tuples(st.just("exhibits.npz"), corrupt(EXHIBITS))
        | st.tuples(st.just("labels/epoch_000.npz"), corrupt(EPOCH))
        | st.tuples(st.just("queries.npz"), corrupt(SCORES)),
        run_folder,
    ),
}  # fmt: skip


def checked(name: str, examples: int, count: Counter[str], *, seed: int | None = None) -> Callable[[], None]:
    """A hypothesis test that gives a target so many inputs and counts how many it read and how many it refused."""
    target = TARGETS[name]

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=seed is None,
        suppress_health_check=list(HealthCheck), phases=(Phase.generate, Phase.shrink),
    )  # fmt: skip
    @given(target.inputs)
    def check(value: Any) -> None:
        with tempfile.TemporaryDirectory() as folder, GUARD.on(Path(folder)):
            try:
                target.read(value, Path(folder))
                count["read"] += 1
            except ReidassocError as error:
                count["refused" if len(str(error).splitlines()) == 1 else "more than one line"] += 1

    return check if seed is None else hypothesis.seed(seed)(check)


def fuzz(name: str, examples: int, *, seed: int | None = None) -> Counter[str]:
    """Give a target so many inputs; return how many it read and how many it refused.

    Raises:
        Exception: the first fault, with the smallest input that shows it (hypothesis prints it).
    """
    count = Counter[str]()
    checked(name, examples, count, seed=seed)()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=2000, help="for each kind of input")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TARGETS)
    options = parser.parse_args()
    os.environ["REIDASSOC_CACHE"] = tempfile.mkdtemp()
    total = Counter[str]()
    for name in [options.only] if options.only else TARGETS:
        started = time.perf_counter()
        count = fuzz(name, options.examples, seed=options.seed)
        total += count
        print(f"| {name} | {count['read']} | {count['refused']} | {time.perf_counter() - started:.0f} s |", flush=True)
    print(f"| all | {total['read']} | {total['refused']} | |")
    sys.exit(bool(total["more than one line"]))


if __name__ == "__main__":
    main()
