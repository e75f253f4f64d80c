"""k1 and k2 belong to the data: a run and the lab give a method those of the clusterer."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from reidassoc import Association, Associator, Scene, registry
from reidassoc.bench.choices import combinations
from reidassoc.overrides import choose


@pytest.fixture
def neighbourly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register an associator of one's own with k1 and k2."""

    @dataclass(frozen=True, kw_only=True)
    class Neighbourly(Associator):
        k1: int = 30
        k2: int = 6

        def __call__(self, scene: Scene) -> Association:
            return Association()

    monkeypatch.setattr(registry, "_added", dict(registry._added))
    registry.add("neighbourly", Neighbourly)


@pytest.mark.parametrize(
    ("words", "clusterer", "associator"),
    [
        ({}, "dbscan(eps=0.6, min_samples=4, k1=8, k2=4)", "neighbourly(k1=8, k2=4)"),
        ({"recipe": "pgm/synthetic"}, "dbscan(eps=0.6, min_samples=4, k1=8, k2=4)", "neighbourly(k1=8, k2=4)"),
        ({"clusterer": "dbscan(k1=10, k2=5)"}, "dbscan(eps=0.6, min_samples=4, k1=10, k2=5)", "neighbourly(k1=10, k2=5)"),
        ({"clusterer": "mixed(eps=0.5, k2=3)"}, "mixed(eps=0.5, k2=3, k1=8)", "neighbourly(k1=8, k2=3)"),
        ({"clusterer": "hdbscan"}, "hdbscan", "neighbourly(k1=8, k2=4)"),  # which has none: those of the recipe's mult
        ({"associator": "neighbourly(k2=2)"}, "dbscan(eps=0.6, min_samples=4, k1=8, k2=4)", "neighbourly(k2=2, k1=8)"),
        ({"recipe": "mult/sysu_mm01"}, "dbscan(eps=0.6, min_samples=4, k1=30, k2=6)", "neighbourly"),  # its defaults
    ],
)  # fmt: skip
def test_k1_and_k2_belong_to_the_data(
    words: dict[str, str], clusterer: str, associator: str, neighbourly: None
) -> None:
    chosen = choose(**{"associator": "neighbourly", **words})  # type: ignore[arg-type]
    assert (str(chosen.clusterer), str(chosen.stages[1].associator)) == (clusterer, associator)
    if "associator" not in words:  # the lab says the same
        (tried,) = combinations([clusterer], ["neighbourly"], ["none"], [])
        assert clusterer == "hdbscan" or str(tried.associator) == associator
