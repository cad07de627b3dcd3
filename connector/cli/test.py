"""The command `connector test`: mapping tests, offline, with readable differences and a JUnit report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from connector.cli.common import BAD_CONFIGURATION, DEFAULT_FILE, FAILED, File, Json, emit, fail, print_raw, visible
from connector.errors import counted

if TYPE_CHECKING:
    from connector.operations.mapping_tests import Difference, Result


def run_tests(
    *,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILES]", help="Test files, or folders of them. Default: those of the configuration."),
    ] = None,
    config: File = DEFAULT_FILE,
    junit: Annotated[
        Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit XML report to FILE.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run mapping tests: what is each destination sent for an event?

    Needs no Kafka, registry or secrets. Without FILES it runs every *.test.yaml next to the configuration and in the
    folder tests/ there. Exits with 1 if a test fails.
    """
    from connector.operations.mapping_tests import TestFileFault, find, run

    try:
        found = find(config, files or ())
        if not found:
            fail(
                f"There are no tests: no file ends with .test.yaml in {config.absolute().parent} or its tests/. "
                "docs/mapping-tests.md shows how to write them.",
                BAD_CONFIGURATION,
            )
        results = [result for file in found for result in run(file, config)]
    except TestFileFault as error:
        fail(f"{counted(len(error.faults), 'fault')} in test files:\n{error}", BAD_CONFIGURATION)
    if junit is not None:
        junit.write_text(_junit(results), encoding="utf-8")
    emit(results, as_json, _json, _show)
    if any(result.differences for result in results):
        raise SystemExit(FAILED)


def _show(results: Sequence[Result]) -> None:
    for result in results:
        if not result.differences:
            print_raw(f"pass  {result.file}: {result.name}")
            continue
        line = "" if result.line is None else f" (line {result.line})"
        print_raw(f"FAIL  {result.file}: {result.name}{line}")
        for difference in result.differences:
            print_raw("\n".join(f"      {part}" for part in _lines(difference)))
    failed = sum(1 for result in results if result.differences)
    print_raw(f"{counted(len(results), 'test')}: {len(results) - failed} passed, {failed} failed.")


def _lines(difference: Difference) -> Iterator[str]:
    """Yield a difference as text."""
    yield difference.problem if difference.destination is None else f"{difference.destination}: {difference.problem}"
    yield from (f"  {place}" for place in difference.places)
    if difference.sent is not None:
        yield f"  sent: {difference.sent}"


def _json(result: Result) -> Mapping[str, Any]:
    return {
        "file": str(result.file),
        "name": result.name,
        "line": result.line,
        "passed": not result.differences,
        "seconds": round(result.seconds, 6),
        "differences": [
            {"destination": each.destination, "problem": each.problem, "places": list(each.places), "sent": each.sent}
            for each in result.differences
        ],
    }


def _junit(results: Sequence[Result]) -> str:
    """Return the report as JUnit XML, one suite for each file."""
    import xml.etree.ElementTree as ET

    root = ET.Element("testsuites", name="connector test", tests=str(len(results)))
    root.set("failures", str(sum(1 for result in results if result.differences)))
    for file in dict.fromkeys(result.file for result in results):
        own = [result for result in results if result.file == file]
        failures = sum(1 for result in own if result.differences)
        suite = ET.SubElement(root, "testsuite", name=str(file), tests=str(len(own)), failures=str(failures))
        suite.set("time", f"{sum(result.seconds for result in own):.6f}")
        for result in own:
            case = ET.SubElement(suite, "testcase", classname=str(file), name=visible(result.name))
            case.set("time", f"{result.seconds:.6f}")
            if result.differences:
                problems = [visible("\n".join(_lines(each))) for each in result.differences]
                failure = ET.SubElement(case, "failure", message=problems[0].partition("\n")[0], type="difference")
                failure.text = "\n".join(problems)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'
