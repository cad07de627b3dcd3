"""Imports point downwards only, from package to package; imports for typing and inside functions count.

`FLOORS` states whole packages. A new package needs a floor, and no module is exempt.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tools.docs import PACKAGES
from tools.source import Module, compiled, modules

FLOORS = (
    "__main__",
    "cli",
    "demo",
    "operations",
    "runtime",
    "delivery",
    "pipeline",
    "routing",
    "console",
    "dead_letters",
    "kafka",
    "codec",
    "vendors",
    "testing",
    "config",
    "telemetry",
    "records",
    "tasks",
    "recent",
    "clock",
    "errors",
)
"""Packages and top-level modules from the top floor down. Each imports only from the floors below it."""
PURE = ("errors", "records", "config", "vendors", "routing")
"""Packages that decide or describe, without I/O."""
PURE_MODULES = (
    "connector.telemetry.metrics",
    "connector.telemetry.redaction",
    "connector.pipeline.batching",
    "connector.pipeline.flow",
    "connector.pipeline.offset_map",
    "connector.pipeline.offsets",
    "connector.delivery.states",
    "connector.delivery.isolation",
    "connector.delivery.lane",
    "connector.delivery.pacing",
    "connector.pipeline.storms",
    "connector.dead_letters.dialects",
    "connector.dead_letters.filters",
    "connector.dead_letters.headers",
    "connector.dead_letters.states",
)
"""Modules that decide without I/O, in packages that also do I/O."""

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


def package(name: str) -> str:
    """Return the package or top-level module of the connector that a module belongs to."""
    return name.split(".")[1] if "." in name else ""


def inner(module: Module) -> Iterator[tuple[int, str]]:
    """Yield line and name of each module of the connector that the module imports."""
    for line, dotted in module.imported():
        if dotted.split(".")[0] == "connector":
            yield line, dotted if dotted in CODE else dotted.rpartition(".")[0]


def test_every_package_has_a_floor() -> None:
    """FLOORS names every package and top-level module, so a new one is placed deliberately."""
    assert {package(name) for name in (*CODE, *(module.name for module in compiled()))} - {""} == set(FLOORS)


def test_file_map_has_the_order_of_the_floors() -> None:
    """docs/design.md lists the packages in the order of their floors."""
    assert [name for name in PACKAGES if name] == [name for name in FLOORS if name in PACKAGES]


def test_imports_point_downwards() -> None:
    """A package imports from lower floors only."""
    floor = {name: number for number, name in enumerate(FLOORS)}
    wrong = [
        f"{module.path}:{line} imports {other}"
        for name, module in CODE.items()
        for line, other in inner(module)
        if "" != package(other) != package(name) != "" and floor[package(other)] < floor[package(name)]
    ]
    assert not wrong, "\n".join(wrong)


def test_pipeline_is_independent_of_kafka_and_avro() -> None:
    """`pipeline`, `delivery` and `routing` state the protocols that they need; `runtime` passes the real ones."""
    wrong = [
        f"{module.path}:{line} imports {other}"
        for name, module in CODE.items()
        if package(name) in {"pipeline", "delivery", "routing"}
        for line, other in inner(module)
        if package(other) in {"kafka", "codec"}
    ]
    assert not wrong, "\n".join(wrong)


def test_no_import_cycles() -> None:
    """Following imports from a module never leads back to it."""
    graph = {name: {other for _, other in inner(module)} - {name, "connector"} for name, module in CODE.items()}
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"import cycle: {' -> '.join((*path[path.index(name) :], name))}"
        if name not in done:
            for other in graph.get(name, ()):
                visit(other, (*path, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("name", [name for name in CODE if package(name) in PURE or name in PURE_MODULES])
def test_pure_modules_do_no_io(name: str) -> None:
    """A pure module imports nothing that could do I/O."""
    wrong = [f"line {line}: {other}" for line, other in CODE[name].imported() if other.split(".")[0] in NO_IO]
    assert not wrong, f"{name} does I/O: {wrong}"


def test_pure_modules_exist() -> None:
    """Every module in PURE_MODULES exists."""
    assert [name for name in PURE_MODULES if name not in CODE] == []


@pytest.mark.parametrize("name", [name for name in CODE if package(name) == "vendors"])
def test_vendors_import_values_and_settings_only(name: str) -> None:
    """Vendor modules import only values, errors, settings and each other from the connector."""
    allowed = ("connector.vendors", "connector.records", "connector.errors", "connector.config")
    wrong = [f"line {line}: {other}" for line, other in inner(CODE[name]) if not other.startswith(allowed)]
    assert not wrong, f"{name}: {wrong}"


@pytest.mark.parametrize(
    ("dependency", "home"),
    [
        ("confluent_kafka", ("connector.codec", "connector.kafka", "connector.testing")),
        ("fastavro", ("connector.codec",)),
        (
            "aiohttp",
            (
                "connector.telemetry.listener",
                "connector.delivery.exchange",
                "connector.delivery.transport",
                "connector.runtime.http",
                "connector.console",
                "connector.testing",
                "connector.demo",
                "connector.operations.status",
            ),
        ),
        ("yaml", ("connector.config.yaml", "connector.demo")),
        ("typer", ("connector.cli",)),
        ("opentelemetry", ("connector.runtime.tracing",)),
    ],
)
def test_each_dependency_is_used_in_its_packages_only(dependency: str, home: tuple[str, ...]) -> None:
    """Each large dependency is imported only where it belongs, so that it can be replaced there."""
    users = {
        name for name, module in CODE.items() for _, other in module.imported() if other.split(".")[0] == dependency
    }
    assert {name for name in users if not name.startswith(home)} == set()


def test_simulators_share_no_code_with_vendors() -> None:
    """Simulators import nothing from the vendor modules."""
    wrong = [
        f"{module.path}:{line}"
        for name, module in CODE.items()
        if package(name) == "testing"
        for line, other in inner(module)
        if other.startswith("connector.vendors")
    ]
    assert not wrong, "\n".join(wrong)


def test_third_party_imports_are_declared() -> None:
    """Every import is from the standard library, the connector, or a declared dependency."""
    declared = {
        "aiohttp",
        "confluent_kafka",
        "fastavro",
        "jinja2",
        "msgspec",
        "orjson",
        "prometheus_client",
        "pydantic",
        "yaml",
        "rich",
    }
    declared |= {"mypy_extensions", "structlog", "typer", "uvloop", "yarl"}  # yarl is part of aiohttp's interface
    declared |= {"opentelemetry"}  # the extra otel
    known = declared | set(sys.stdlib_module_names) | {"connector"}
    unknown = {other.split(".")[0] for module in CODE.values() for _, other in module.imported()} - known
    assert unknown == set()
