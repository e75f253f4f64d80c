"""Shared fixtures: a run small enough for tests, and a decoded-image cache of the tests' own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import torch
from support.small import SMALL

from reidassoc import registry
from reidassoc.engine.train import run
from reidassoc.ops.compiled.dispatch import compiled, without_numba
from reidassoc.recipe.choose import choose
from reidassoc.recipe.model import Recipe
from reidassoc.registry.entry_points import out_of_step

hypothesis.settings.register_profile(  # a machine that is busy is no fault
    "ours", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("ours")


def pytest_configure() -> None:
    """Plug-ins are found by what the installation wrote down: hundreds of failures would hide that it is old."""
    if names := sorted({point.name for point in out_of_step()}):
        pytest.exit(f"setup.cfg and the installation differ in {', '.join(names)}: run pip install -e . again", 2)


@pytest.fixture(autouse=True, scope="session")
def _few_threads() -> None:
    """Many small tensors: more threads only cost time."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of MULT, shared by all tests: look, but don't touch."""
    folder = tmp_path_factory.mktemp("finished") / "mult"
    run(choose(associator="mult", dataset="synthetic(size='tiny')", changes=SMALL), out=folder, device="cpu")
    return folder


@pytest.fixture(scope="session")
def rival(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Likewise one of PGM in MULT's recipe, evaluated after its last epoch alone."""
    folder = tmp_path_factory.mktemp("rival") / "pgm"
    changes = [*SMALL, ("evaluate_every", 0), ("cross.associator", "pgm"), ("cross.refiners", ["oclr"])]
    run(choose(recipe="mult/synthetic", dataset="synthetic(size='tiny')", changes=changes), out=folder, device="cpu")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REIDASSOC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def _own_plugins() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(registry.lookup._added)
    yield
    registry.lookup._added.clear()
    registry.lookup._added.update(before)


@pytest.fixture
def small() -> Recipe:
    """MULT on the tiny synthetic pedestrians: five epochs of four steps."""
    return choose(associator="mult", dataset="synthetic(size='tiny')", changes=SMALL)


@pytest.fixture(params=["numba", "torch"])
def loops(request: pytest.FixtureRequest) -> Iterator[str]:
    """The test runs twice: by the compiled loops, where numba is installed, and by the plain ones."""
    if request.param == "torch":
        with without_numba():
            yield "torch"
        return
    if compiled(torch.device("cpu")) is None:
        pytest.skip("numba is not installed")
    yield "numba"
