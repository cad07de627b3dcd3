"""Imports point downwards only, as docs/design.md draws the rooms; imports for typing and in functions count."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tools.source import Module, modules

LAYERS = (
    # Bottom first. A name stands for the module or package; the longest name that fits a module decides.
    ("connector", "connector.errors", "connector.records", "connector.clock"),
    ("connector.redaction", "connector.terminal", "connector.config*", "connector.metrics", "connector.logs"),
    ("connector.vendors", "connector.pipeline", "connector.delivery", "connector.dead_letters.headers"),
    (
        *("connector.pipeline.runner", "connector.pipeline.intake"),
        *("connector.delivery.worker", "connector.delivery.transport"),
        *("connector.kafka", "connector.dead_letters", "connector.dead_letters.reader"),
    ),
    (
        *("connector.server", "connector.skips", "connector.status", "connector.stuck", "connector.watchdog"),
        "connector.otel",
        "connector.wiring",
        *("connector.console", "connector.dead_letters.commands"),
    ),
    ("connector.app*", "connector.testing"),
    ("connector.testing.demo*",),
    (
        *("connector.check_report", "connector.offsets_report", "connector.letters_report", "connector.replay_report"),
        *("connector.explain_report", "connector.preview_report"),
        *("connector.actions", "connector.cli*", "connector.__main__"),
    ),
)
SIDE_BY_SIDE = 3
"""The layer whose rooms do not know each other: runner, worker, Kafka and the reader meet in `app` only."""

NO_IO = {
    "aiohttp",
    "asyncio",
    "confluent_kafka",
    "fastavro",
    "multiprocessing",
    "requests",
    "socket",
    "threading",
    "uvloop",
}
CODE = {module.name: module for module in modules("connector")}


def layer(name: str) -> int:
    """Return the layer of a module, -1 for one that no layer names."""
    fitting = [
        (len(pattern), number)
        for number, patterns in enumerate(LAYERS)
        for pattern in patterns
        if name == pattern.rstrip("*")
        or name.startswith(pattern.rstrip("*") + ".")
        or (pattern.endswith("*") and name.startswith(pattern[:-1] + "_"))
    ]
    # The bare package is a module of its own, not a home for what no layer names.
    return max((fit for fit in fitting if fit[0] > len("connector") or name == "connector"), default=(0, -1))[1]


def room(name: str) -> str:
    """Return the package below `connector` that the module is in, or its own name in the hallway."""
    return ".".join(name.split(".")[:2])


def inner(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of each module of the connector that the module imports."""
    for line, dotted in module.imported():
        if dotted.split(".")[0] == "connector":
            yield line, dotted if dotted in CODE else dotted.rpartition(".")[0]


def test_every_module_stands_in_a_layer() -> None:
    """LAYERS names every module or its package, so that a new one is placed on purpose."""
    assert [name for name in CODE if layer(name) < 0] == []


@pytest.mark.parametrize("name", CODE)
def test_imports_point_downwards(name: str) -> None:
    """A module imports from lower layers and its own room, and in a layer of strangers from its own room only."""
    wrong = []
    for line, other in inner(CODE[name]):
        here, there = layer(name), layer(other)
        stranger = here == there == SIDE_BY_SIDE and room(name) != room(other)
        of_package = CODE[name].path.name == "__init__.py" and room(name) == room(other)
        if (there > here and not of_package) or stranger:
            wrong.append(f"{CODE[name].path}:{line} imports {other}")
    assert not wrong, "\n".join(wrong)


def test_no_import_goes_in_a_circle() -> None:
    """Following imports never leads back to where one started."""
    graph = {name: {other for _, other in inner(module)} - {name, "connector"} for name, module in CODE.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"a circle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", [name for name in CODE if layer(name) < SIDE_BY_SIDE and name != "connector.clock"])
def test_decisions_are_made_without_io(name: str) -> None:
    """What stands below the rooms that do I/O imports nothing that could; the clock alone may sleep."""
    wrong = [f"line {line}: {other}" for line, other in CODE[name].imported() if other.split(".")[0] in NO_IO]
    assert not wrong, f"{name} does I/O: {wrong}"


@pytest.mark.parametrize("name", [name for name in CODE if room(name) == "connector.vendors"])
def test_a_vendor_knows_values_and_settings_only(name: str) -> None:
    """Vendor modules import nothing of the connector but values, errors, settings and each other."""
    allowed = ("connector.vendors", "connector.records", "connector.errors", "connector.config")
    wrong = [f"line {line}: {other}" for line, other in inner(CODE[name]) if not other.startswith(allowed)]
    assert not wrong, f"{name}: {wrong}"


@pytest.mark.parametrize(
    ("package", "home"),
    [
        ("confluent_kafka", ("connector.kafka", "connector.testing")),
        ("fastavro", ("connector.kafka",)),
        ("aiohttp", ("connector.delivery.transport", "connector.server", "connector.console", "connector.testing")),
        ("yaml", ("connector.config_source", "connector.testing.demo")),
        ("typer", ("connector.cli",)),
        ("opentelemetry", ("connector.otel",)),
    ],
)
def test_a_dependency_has_one_home(package: str, home: tuple[str, ...]) -> None:
    """Each large dependency is imported in its own room only, so that it can be replaced there."""
    users = {name for name, module in CODE.items() for _, other in module.imported() if other.split(".")[0] == package}
    assert {name for name in users if not name.startswith(home)} == set()


def test_every_simulator_is_written_apart_from_its_vendor() -> None:
    """Simulators share no code with the vendor modules: only the demo, which runs the real thing, knows both."""
    wrong = [
        f"{module.path}:{line}"
        for name, module in CODE.items()
        if name.startswith("connector.testing") and layer(name) == layer("connector.testing")
        for line, other in inner(module)
        if other.startswith("connector.vendors")
    ]
    assert not wrong, "\n".join(wrong)


def test_third_party_imports_are_declared() -> None:
    """Whatever the connector imports is Python's own, the connector itself, or a dependency of pyproject.toml."""
    declared = {
        "aiohttp",
        "confluent_kafka",
        "fastavro",
        "msgspec",
        "orjson",
        "prometheus_client",
        "pydantic",
        "yaml",
        "rich",
    }
    declared |= {"mypy_extensions", "structlog", "typer", "uvloop", "yarl"}  # yarl is a part of aiohttp's interface
    declared |= {"opentelemetry"}  # of the extra otel
    known = declared | set(sys.stdlib_module_names) | {"connector"}
    unknown = {other.split(".")[0] for module in CODE.values() for _, other in module.imported()} - known
    assert unknown == set()
