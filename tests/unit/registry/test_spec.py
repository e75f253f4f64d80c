"""The text form of a plug-in, and the validation of its options."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from reidassoc.errors import PluginError, SpecError
from reidassoc.registry.options import construct, options_of
from reidassoc.registry.spec import Spec, parse_value

VALUES = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A sample of every type of option."""

    eps: Annotated[float, Field(gt=0, le=1, description="radius")] = 0.6
    count: Annotated[int, Field(ge=1)] = 4
    mode: Literal["own", "paired"] = "own"
    flag: bool = False
    sizes: tuple[int, ...] = (1, 2)
    limit: float | None = None


@given(
    st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(str.isidentifier), VALUES, max_size=4)
)
def test_text_form_reads_back(options: dict[str, object]) -> None:
    import keyword

    options = {key: value for key, value in options.items() if not keyword.iskeyword(key)}
    spec = Spec("name", options)
    assert Spec.parse(str(spec)) == spec


@given(st.text(max_size=60))
def test_any_text_is_a_spec_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(SpecError):  # anything else is a fault
        Spec.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dbscan(",
        "dbscan(0.6)",
        "dbscan(**x)",
        "a.b(c=1)",
        "__import__('os').system('true')",
        "f(x=open('a'))",
        "f(x=1, x=2)",
        "f(x=[y for y in z])",
    ],
)
def test_no_expression_is_ever_evaluated(text: str) -> None:
    with pytest.raises(SpecError, match="can't read"):
        Spec.parse(text)


def test_bare_words_are_text_and_truth_values() -> None:
    assert Spec.parse("f(a=imagenet, b=true, c=none)").options == {"a": "imagenet", "b": True, "c": None}
    assert parse_value("0.3") == 0.3
    assert parse_value("/data/SYSU MM01") == "/data/SYSU MM01"


def test_options_are_set_and_left_out() -> None:
    spec = Spec.parse("regdb(root='/data', split=3)")
    assert str(spec.without("root", "nosuch").with_options(split=4)) == "regdb(split=4)"
    assert spec.options == {"root": "/data", "split": 3}


def test_options_take_their_types() -> None:
    made = construct(Sample, {"eps": 1, "sizes": [3], "limit": 2}, "sample")
    assert made == Sample(eps=1.0, sizes=(3,), limit=2.0)
    assert isinstance(made.eps, float)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epss": 0.3}, "sample: no option 'epss'; did you mean 'eps'; options: eps, count"),
        ({"eps": 1.5}, "sample: eps must be float > 0 and ≤ 1, got 1.5"),
        ({"eps": "0.5"}, "sample: eps must be float"),
        ({"count": 2.5}, "sample: count must be int ≥ 1, got 2.5"),
        ({"count": True}, "sample: count must be int"),
        ({"count": 0}, "sample: count must be int ≥ 1, got 0"),
        ({"mode": "owned"}, "sample: mode must be 'own' | 'paired', got 'owned'"),
        ({"flag": 1}, "sample: flag must be bool, got 1"),
        ({"limit": "x"}, r"sample: limit must be float \| none"),
    ],
)
def test_a_wrong_option_is_named_with_what_was_expected(options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        construct(Sample, options, "sample")
    assert message.replace("\\", "").replace("'; options", "'?; options") in str(caught.value)


def test_options_are_described_for_show() -> None:
    eps, count, mode, *_ = options_of(Sample)
    assert (eps.name, eps.type, eps.default, eps.range, eps.doc) == ("eps", "float", "0.6", "> 0 and ≤ 1", "radius")
    assert count.range == "≥ 1"
    assert mode.type == "'own' | 'paired'"


def test_a_required_option_is_asked_for() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Needy:
        root: str

    with pytest.raises(SpecError, match=r"needy: option 'root' is required, as in needy\(root=…\)"):
        construct(Needy, {}, "needy")


def test_a_default_that_is_made_is_shown() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Made:
        sizes: tuple[int, ...] = field(default_factory=lambda: (1, 2))

    assert [option.default for option in options_of(Made)] == ["(1, 2)"]
    assert construct(Made, {}, "made").sizes == (1, 2)


def test_a_plugin_must_be_a_dataclass() -> None:
    with pytest.raises(PluginError, match="must be a frozen, keyword-only dataclass"):
        construct(int, {}, "int")


def test_a_comma_that_yaml_took_is_explained() -> None:
    with pytest.raises(SpecError, match="quote a spec that has commas"):
        Spec.parse("salcr(k=8")
