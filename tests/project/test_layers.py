"""Imports point downwards only, as docs/design.md draws the rooms; imports for typing and in functions count."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tools.source import Module, modules

FLOORS = (
    # Bottom first. A package imports from lower floors only; every package is on a floor of its own.
    "errors",
    "clock",
    "uuid_text",
    "records",
    "telemetry",
    "config",
    "testing",
    "vendors",
    "codec",
    "kafka",
    "dead_letters",
    "console",
    "routing",
    "pipeline",
    "delivery",
    "runtime",
    "operations",
    "demo",
    "cli",
    "__main__",
)
PURE = ("errors", "records", "config", "telemetry", "vendors", "routing")
"""Packages that decide or describe without I/O."""
PURE_MODULES = (
    "connector.pipeline.batching",
    "connector.pipeline.flow",
    "connector.pipeline.offset_map",
    "connector.pipeline.offsets",
    "connector.delivery.holds",
    "connector.delivery.isolation",
    "connector.delivery.lane",
    "connector.delivery.pacing",
    "connector.delivery.storms",
    "connector.dead_letters.headers",
)
"""Modules that decide without I/O in packages that also do I/O."""

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


def room(name: str) -> str:
    """Return the package or top-level module below `connector` that a module belongs to."""
    return name.split(".")[1] if "." in name else ""


def inner(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of each module of the connector that the module imports."""
    for line, dotted in module.imported():
        if dotted.split(".")[0] == "connector":
            yield line, dotted if dotted in CODE else dotted.rpartition(".")[0]


def test_every_package_has_a_floor() -> None:
    """FLOORS names every package and every top-level module, so that a new one is placed on purpose."""
    assert {room(name) for name in CODE} - {""} == set(FLOORS) - {"uuid_text"}


def test_imports_point_downwards() -> None:
    """A package imports from packages on lower floors only; imports for typing and in functions count."""
    floor = {name: number for number, name in enumerate(("", *FLOORS))}
    wrong = [
        f"{module.path}:{line} imports {other}"
        for name, module in CODE.items()
        for line, other in inner(module)
        if room(other) != room(name) and floor[room(other)] > floor[room(name)]
    ]
    assert not wrong, "\n".join(wrong)


def test_the_pipeline_knows_neither_kafka_nor_avro() -> None:
    """`pipeline` and `delivery` state the protocols that they need; `runtime` passes the real ones."""
    wrong = [
        f"{module.path}:{line} imports {other}"
        for name, module in CODE.items()
        if room(name) in {"pipeline", "delivery", "routing"}
        for line, other in inner(module)
        if room(other) in {"kafka", "codec"}
    ]
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


@pytest.mark.parametrize("name", [name for name in CODE if room(name) in PURE or name in PURE_MODULES])
def test_decisions_are_made_without_io(name: str) -> None:
    """A module that decides or describes imports nothing that could do I/O."""
    wrong = [f"line {line}: {other}" for line, other in CODE[name].imported() if other.split(".")[0] in NO_IO]
    assert not wrong, f"{name} does I/O: {wrong}"


def test_every_pure_module_exists() -> None:
    """A pure module that was renamed is renamed here too."""
    assert [name for name in PURE_MODULES if name not in CODE] == []


@pytest.mark.parametrize("name", [name for name in CODE if room(name) == "vendors"])
def test_a_vendor_knows_values_and_settings_only(name: str) -> None:
    """Vendor modules import nothing of the connector but values, errors, settings and each other."""
    allowed = ("connector.vendors", "connector.records", "connector.errors", "connector.config")
    wrong = [f"line {line}: {other}" for line, other in inner(CODE[name]) if not other.startswith(allowed)]
    assert not wrong, f"{name}: {wrong}"


@pytest.mark.parametrize(
    ("package", "home"),
    [
        ("confluent_kafka", ("connector.codec", "connector.kafka", "connector.testing", "connector.demo")),
        ("fastavro", ("connector.codec",)),
        (
            "aiohttp",
            (
                "connector.delivery.transport",
                "connector.runtime.http",
                "connector.console",
                "connector.testing",
                "connector.demo",
            ),
        ),
        ("yaml", ("connector.config.yaml", "connector.demo")),
        ("typer", ("connector.cli",)),
        ("opentelemetry", ("connector.runtime.tracing",)),
    ],
)
def test_a_dependency_has_one_home(package: str, home: tuple[str, ...]) -> None:
    """Each large dependency is imported in its own room only, so that it can be replaced there."""
    users = {name for name, module in CODE.items() for _, other in module.imported() if other.split(".")[0] == package}
    assert {name for name in users if not name.startswith(home)} == set()


def test_every_simulator_is_written_apart_from_its_vendor() -> None:
    """Simulators share no code with the vendor modules."""
    wrong = [
        f"{module.path}:{line}"
        for name, module in CODE.items()
        if room(name) == "testing"
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
