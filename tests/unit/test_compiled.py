"""The modules that are compiled while the package is built: they are what their sources say, compiled or not."""

from __future__ import annotations

import importlib
import importlib.util
import os
from datetime import UTC, datetime
from decimal import Decimal
from types import ModuleType
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.errors import Refusal
from connector.vendors import jiguang_event
from connector.vendors.base import VendorEvent
from connector.vendors.checks import Rules
from connector.vendors.jiguang_rules import RULES
from tools.source import ROOT

MODULES: Final = ("connector/kafka/reader.py", "connector/vendors/jiguang_event.py")
NOW: Final = 1_700_000_000_000


@pytest.mark.parametrize("module", MODULES)
def test_what_runs_is_the_source_that_stands_here(module: str) -> None:
    """A library that is older than its source would hide every change of it."""
    source = ROOT / module
    loaded = importlib.import_module(module.removesuffix(".py").replace("/", "."))
    libraries = list(source.parent.glob(f"{source.stem}.*.so"))
    compiled = not str(loaded.__file__).endswith(".py")
    if "CI" in os.environ:
        assert compiled, "make installs the package with the module compiled"
    assert bool(libraries) == compiled
    assert all(one.stat().st_mtime >= source.stat().st_mtime for one in libraries), "run make .venv/.compiled"


def test_the_build_compiles_these_modules() -> None:
    """The list here is the build's, and make builds again for each. Kills: a module that only a developer compiles."""
    build, make = (ROOT / "hatch_build.py").read_text("utf-8"), (ROOT / "Makefile").read_text("utf-8")
    assert all(f'Path("{module}")' in build for module in MODULES)
    assert build.count('Path("connector/') == len(MODULES)
    assert all(module in make for module in MODULES)


def _interpreted() -> ModuleType:
    spec = importlib.util.spec_from_file_location("interpreted_event", ROOT / MODULES[1])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INTERPRETED: Final = _interpreted()

longs = st.integers() | st.sampled_from([2**63, 2**63 - 1, -(2**63), -(2**63) - 1, 2**62, NOW, NOW + 300_001])
values = st.one_of(
    st.none(),
    st.booleans(),
    longs,
    st.floats(),
    st.text(),
    st.binary(),
    st.just(Decimal("1.5")),
    st.just(datetime(2023, 11, 14, tzinfo=UTC)),
    st.lists(st.text() | longs, max_size=3),
    st.dictionaries(st.text(), longs, max_size=2),
)
events = st.fixed_dictionaries(
    {},
    optional={
        "cuid": st.just(1) | values,
        "eventName": st.just("view") | values,
        "itime": st.just(NOW) | values,
        "randomId": values,
        "properties": st.dictionaries(st.text(), values, max_size=5) | values,
    },
)


def _outcome(module: ModuleType, fields: dict[str, Any], off: list[str]) -> object:
    """Return the item, or as what the event is refused."""
    encoder = module.Events(Rules("jiguang", RULES, [f"jiguang.{rule}" for rule in off]))
    try:
        return encoder.encode(VendorEvent(fields, "identity"), NOW)
    except Refusal as refusal:
        return refusal.code, refusal.message, refusal.field


@settings(max_examples=400)
@given(events, st.lists(st.sampled_from(sorted(RULES)), max_size=4))
def test_an_event_is_the_same_to_the_library_and_to_its_source(fields: dict[str, Any], off: list[str]) -> None:
    """The same item, or the same refusal, whatever the event. Kills: a check that compiling changes."""
    assert _outcome(jiguang_event, fields, off) == _outcome(INTERPRETED, fields, off)
