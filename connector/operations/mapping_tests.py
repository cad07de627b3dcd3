"""Mapping tests: events, and what each destination must be sent for them. Run offline.

A file ends with `.test.yaml`. Its keys are those of `TestFile`; `docs/mapping-tests.md` explains them.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, ValidationError

from connector.config.base import Model
from connector.config.errors import faults_of, kind, suggest
from connector.config.loader import Loaded
from connector.config.yaml import Document, parse, read_text
from connector.dead_letters.inspection import Inspection, Preparation
from connector.errors import ConfigFault, ConfigurationError, ConnectorError
from connector.operations.offline import EventFault, Offline, headers_of, load_offline, read_events, time_of
from connector.operations.offline import WrittenEvent as Event

SUFFIXES: Final = (".test.yaml", ".test.yml")
NOTHING: Final = "nothing"
_MISSING: Final = object()
_FORMS: Final = "write nothing, {event: …}, {part: …} or {refused: CODE}"


class MappingTest(Model):
    """One test: an event, and what is expected of it."""

    name: str = Field(min_length=1, description="What the test checks.")
    topic: str | None = Field(default=None, description="The event's topic. Unset: the first topic of its route.")
    schema_name: str | None = Field(default=None, alias="schema", description="The full name of its schema.")
    event: Any = Field(default=None, description="The event, in plain JSON or Avro's JSON, written as YAML.")
    event_file: str | None = Field(default=None, description="A JSON file with the event, relative to the test file.")
    key: Any = Field(default=None, description="The record's key: text, or a mapping for a key that is Avro.")
    headers: dict[str, str | None] = Field(default={}, description="The record's headers.")
    time: Any = Field(default=None, description="The record's time; rules about the present use it too.")
    expect: Any = Field(default=None, description="By destination: nothing, {event}, {part} or {refused}.")
    refused: str | None = Field(default=None, description="The code with which the record itself is refused.")
    others: Literal["nothing", "ignore"] = Field(
        default="nothing", description="`ignore`: destinations that are not named may be sent anything."
    )


class MappingTestFile(Model):
    """A file of tests. `topic`, `schema` and `time` hold for every test that does not give its own."""

    config: str | None = Field(default=None, description="The configuration, relative to this file.")
    schemas: list[str] = Field(default=[], description="Further schema files, as globs relative to this file.")
    env: dict[str, str] = Field(default={}, description="Values of ${NAME} in the configuration.")
    topic: str | None = Field(default=None, description="The topic of every test.")
    schema_name: str | None = Field(default=None, alias="schema", description="The schema of every test.")
    time: Any = Field(default=None, description="The time of every test.")
    tests: list[MappingTest] = Field(min_length=1, description="The tests.")


class TestFileFault(ConfigurationError):
    """A test file is wrong; `faults` has everything that was found."""

    __test__ = False


@dataclass(frozen=True, slots=True)
class Difference:
    """An unexpected result: `problem` in a sentence, and the places where two values differ."""

    destination: str | None
    problem: str
    places: tuple[str, ...] = ()
    sent: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one test; it passed if there are no differences."""

    file: Path
    name: str
    line: int | None
    seconds: float
    differences: tuple[Difference, ...] = field(default=())


def find(config: Path, named: Sequence[Path]) -> list[Path]:
    """Return the test files: those `named` (or all in a named folder), else all next to `config` and below `tests/`.

    Files whose `config` is another configuration are found only if named. Raises `TestFileFault`.
    """
    if not named:
        folder = config.parent
        return [path for path in _files(folder, deep=False) + _files(folder / "tests") if _is_for(path, config)]
    found: list[Path] = []
    for path in named:
        if not path.exists():
            raise TestFileFault([ConfigFault(str(path), "there is no such file or folder")])
        found += _files(path) if path.is_dir() else [path]
    return list(dict.fromkeys(found))


def _files(folder: Path, *, deep: bool = True) -> list[Path]:
    return sorted(path for path in folder.glob("**/*" if deep else "*") if path.name.endswith(SUFFIXES))


def _is_for(path: Path, config: Path) -> bool:
    try:
        tree = parse(read_text(path)).value
    except ValueError:
        return True  # its fault is reported when it is run
    other = tree.get("config") if isinstance(tree, dict) else None
    return not isinstance(other, str) or (path.parent / other).resolve() == config.resolve()


def run(file: Path, config: Path) -> Iterator[Result]:
    """Yield the result of each test in a file. Raises `TestFileFault`, and `ConfigurationError`."""
    tests, document = _read(file)
    config = file.parent / tests.config if tests.config is not None else config
    loaded = load_offline(config, {**os.environ, **tests.env})
    offline = Offline(loaded, _schema_files(file, tests.schemas))
    plans = [_Plan(file, document, tests, index, loaded) for index in range(len(tests.tests))]
    if faults := [fault for plan in plans for fault in plan.faults]:
        raise _located(file, faults)
    for plan in plans:
        began = time.perf_counter()
        differences = tuple(plan.differences(offline))
        yield Result(file, plan.test.name, plan.line, time.perf_counter() - began, differences)


def _read(file: Path) -> tuple[MappingTestFile, Document]:
    try:
        document = parse(read_text(file))
    except ValueError as error:
        raise TestFileFault([ConfigFault(str(file), str(error))]) from None
    if document.faults:
        raise _located(file, document.faults)
    try:
        return MappingTestFile.model_validate(document.value), document
    except ValidationError as error:
        faults = faults_of(error, MappingTestFile, document.value, "")
        raise _located(file, [_with_line(fault, document) for fault in faults]) from None


def _schema_files(file: Path, patterns: Sequence[str]) -> list[Path]:
    found, faults = [], []
    for index, pattern in enumerate(patterns):
        matches = [Path(pattern)] if Path(pattern).is_absolute() else sorted(file.parent.glob(pattern))
        if not matches:
            faults.append(ConfigFault(f"schemas[{index}]", f"{pattern} matches no file in {file.absolute().parent}"))
        found += matches
    if faults:
        raise _located(file, faults)
    return found


def _located(file: Path, faults: Sequence[ConfigFault]) -> TestFileFault:
    places = [(f"{file}: {fault.path}" if fault.path else str(file), fault) for fault in faults]
    return TestFileFault([ConfigFault(place, fault.message, fault.line) for place, fault in places])


def _with_line(fault: ConfigFault, document: Document) -> ConfigFault:
    path = fault.path
    while path and path not in document.lines:
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return ConfigFault(fault.path, fault.message, fault.line or document.lines.get(path))


class _Plan:
    """One test, ready to run; `faults` are the faults in how it is written."""

    def __init__(self, file: Path, document: Document, tests: MappingTestFile, index: int, loaded: Loaded) -> None:
        self.test = tests.tests[index]
        self.path = f"tests[{index}]"
        self.line = document.lines.get(self.path)
        self.faults: list[ConfigFault] = []
        self._document = document
        self._event: Event | None = None
        self._expected: dict[str, Any] = {}
        try:
            self._event = self._written(file, tests)
        except EventFault as fault:
            self._fault(self.path, str(fault))
        self._check_expectations(loaded)

    def _fault(self, path: str, message: str) -> None:
        self.faults.append(_with_line(ConfigFault(path, message), self._document))

    def _written(self, file: Path, tests: MappingTestFile) -> Event:
        test = self.test
        if (test.event is None) == (test.event_file is None):
            raise EventFault("give either event or event_file")
        given = Event(test.event)
        if test.event_file is not None:
            try:
                (given,) = read_events(read_text(file.parent / test.event_file), test.event_file)
            except ValueError as error:
                reason = "must hold one event" if "unpack" in str(error) else str(error)
                raise EventFault(f"event_file: {test.event_file}: {reason}") from None
        elif not isinstance(test.event, dict):
            raise EventFault(f"event must be a mapping, not {kind(test.event)}")
        at = test.time if test.time is not None else tests.time
        return Event(
            given.event,
            test.topic or given.topic or tests.topic,
            test.schema_name or given.schema or tests.schema_name,
            test.key if test.key is not None else given.key,
            headers_of(test.headers, "the test") or given.headers,
            time_of(at, "the test") if at is not None else given.time,
        )

    def _check_expectations(self, loaded: Loaded) -> None:
        test, path = self.test, f"{self.path}.expect"
        if (test.expect is None) == (test.refused is None):
            self._fault(self.path, "give either expect, or refused with the code that refuses the whole record")
        if test.expect is None or test.expect == NOTHING:
            return
        if not isinstance(test.expect, dict):
            self._fault(path, f"must be nothing, or a mapping by destination, not {kind(test.expect)}")
            return
        for name, wanted in test.expect.items():
            if name not in loaded.settings.destinations:
                record = "; for a refused record write refused: CODE instead of expect" if name == "refused" else ""
                known = suggest(name, loaded.settings.destinations)
                self._fault(f"{path}.{name}", f"unknown destination; {known}{record}")
            elif wanted == NOTHING:
                continue
            elif not isinstance(wanted, dict) or len(wanted) != 1 or not wanted.keys() <= {"event", "part", "refused"}:
                self._fault(f"{path}.{name}", _FORMS)
            elif "refused" in wanted and not isinstance(wanted["refused"], str):
                self._fault(f"{path}.{name}.refused", "must be the code of a refusal, such as mytracker.method.value")
        self._expected = test.expect

    def differences(self, offline: Offline) -> Iterator[Difference]:
        """Yield the differences from the expectation."""
        try:
            found = offline.inspect(self._event or Event({}))
        except ConnectorError as error:
            yield Difference(None, str(error))
            return
        if self.test.refused is not None or found.fault is not None:
            yield from _whole(self.test.refused, found)
            return
        sent = {each.destination: each for each in found.preparations}
        for name, wanted in self._expected.items():
            yield from _compared(name, wanted, sent.get(name))
        for name, preparation in sent.items():
            if name not in self._expected and self.test.others == NOTHING:
                yield Difference(
                    name, f"{_became(preparation)}, and the test does not expect it", (), _fragment(preparation)
                )


def _whole(wanted: str | None, found: Inspection) -> Iterator[Difference]:
    """Yield the differences from the expected refusal of the whole record."""
    if found.fault is None:
        destinations = ", ".join(each.destination for each in found.preparations) or "no destination"
        yield Difference(None, f"expected the record to be refused with {wanted}; it goes to {destinations}")
    elif wanted is None:
        yield Difference(None, f"the record is refused with {found.code}: {found.fault}")
    elif wanted != found.code:
        yield Difference(None, f"expected the record to be refused with {wanted}, not {found.code}: {found.fault}")


def _compared(name: str, wanted: Any, found: Preparation | None) -> Iterator[Difference]:
    """Yield the differences from what one destination should be sent."""
    if wanted == NOTHING:
        if found is not None:
            yield Difference(name, f"expected nothing to be sent; {_became(found)}", (), _fragment(found))
        return
    if "refused" in wanted:
        if found is None or found.rule != wanted["refused"]:
            became = "no route leads there" if found is None else _became(found)
            sent = None if found is None else _fragment(found)
            yield Difference(name, f"expected a refusal with {wanted['refused']}; {became}", (), sent)
        return
    if found is None or found.rule is not None:
        yield Difference(name, "nothing is sent: no route leads there" if found is None else _became(found))
        return
    (form,) = wanted
    places = tuple(_places(wanted[form], _value(found), "", whole=form == "event"))
    if places:
        yield Difference(name, "the event is not as expected", places, found.fragment)


def _became(found: Preparation) -> str:
    return "an event is sent" if found.rule is None else f"it is refused with {found.rule}: {found.reason}"


def _fragment(found: Preparation) -> str | None:
    return None if found.rule is not None else found.fragment


def _value(found: Preparation) -> Any:
    """Return what is sent in JSON's types, or as text if it is not JSON."""
    try:
        return json.loads(found.fragment or "")
    except ValueError:
        return found.fragment


def _places(wanted: Any, sent: Any, path: str, *, whole: bool) -> Iterator[str]:
    """Yield each place where `sent` differs from `wanted`; without `whole`, mappings may have additional keys."""
    where = path or "the event"
    if isinstance(wanted, dict) and isinstance(sent, dict):
        for name in (*wanted, *(name for name in sent if whole and name not in wanted)):
            below = f"{path}.{name}" if path else str(name)
            yield from _places(wanted.get(name, _MISSING), sent.get(name, _MISSING), below, whole=whole)
    elif isinstance(wanted, list) and isinstance(sent, list):
        for index in range(max(len(wanted), len(sent))):
            left, right = (values[index] if index < len(values) else _MISSING for values in (wanted, sent))
            yield from _places(left, right, f"{path}[{index}]", whole=whole)
    elif wanted is _MISSING:
        yield f"{where}: not expected, sent {_text(sent)}"
    elif sent is _MISSING:
        yield f"{where}: expected {_text(wanted)}, not sent"
    elif wanted != sent or isinstance(wanted, bool) != isinstance(sent, bool):
        yield f"{where}: expected {_text(wanted)}, sent {_text(sent)}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
