"""A blocked log stream never blocks the code that logs; what does not fit is dropped and counted."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from typing import TextIO

import pytest

from connector.config.loader import LogSettings
from connector.telemetry import logs
from connector.telemetry.log_writer import LogWriter


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """A pipe that no one reads: its reading end, and a stream into it."""
    reading, writing = os.pipe()
    stream = os.fdopen(writing, "w", encoding="utf-8")
    yield reading, stream
    os.close(reading)
    stream.close()


def read_until(reading: int, text: bytes) -> bytes:
    """Read from a pipe until the text has come."""
    got = b""
    while text not in got:
        got += os.read(reading, 1 << 16)
    return got


def test_lines_are_written_in_order() -> None:
    """Everything that was put is written once, in order, when a flush returns."""
    stream = io.StringIO()
    writer = LogWriter(stream, lambda _: None)
    for number in range(1000):
        writer.put(f"{number}\n")
    assert writer.flush(5)
    assert stream.getvalue().split() == [str(number) for number in range(1000)]


def test_a_blocked_pipe_blocks_no_one(pipe: tuple[int, TextIO]) -> None:
    """Lines are still taken; what is over the bound is dropped, counted, and reported once the pipe is read.

    Kills: writing where the line is logged; a queue without an end; dropping without a word.
    """
    reading, stream = pipe
    reported: list[int] = []
    done = threading.Event()

    def report(count: int) -> None:
        reported.append(count)
        done.set()

    writer = LogWriter(stream, report, limit=200_000)
    line = "x" * 999 + "\n"
    for _ in range(1000):
        writer.put(line)
    assert not writer.flush(0.05)
    assert writer.dropped > 500
    read_until(reading, (line * (1000 - writer.dropped)).encode())
    assert done.wait(5)
    assert sum(reported) == writer.dropped
    assert writer.flush(5)


@pytest.mark.promise("P12")
def test_a_full_pipe_that_does_not_block_loses_no_line(pipe: tuple[int, TextIO]) -> None:
    """A process that shares the pipe may have made it non-blocking: the writer waits there, and not the others.

    Kills: lines that are lost without being counted, and one that ends in the middle.
    """
    reading, stream = pipe
    os.set_blocking(stream.fileno(), False)
    writer = LogWriter(stream, lambda _: None)
    lines = "".join(f"{number} {'x' * 990}\n" for number in range(300)).encode()
    for line in lines.decode().splitlines(keepends=True):
        writer.put(line)
    assert not writer.flush(0.05)
    got = b""
    while len(got) < len(lines):
        got += os.read(reading, 1 << 16)
    assert got == lines
    assert writer.flush(5)
    assert writer.dropped == 0


def test_a_report_that_fails_does_not_end_the_writer(pipe: tuple[int, TextIO]) -> None:
    """The lines after it are written. Kills: a log that ends for ever because one line could not be made."""
    reading, stream = pipe
    called = threading.Event()

    def report(_count: int) -> None:
        called.set()
        raise KeyError

    writer = LogWriter(stream, report, limit=200_000)
    line = "x" * 999 + "\n"
    for _ in range(1000):
        writer.put(line)
    read_until(reading, (line * 150).encode())
    assert called.wait(5)
    writer.put("the end\n")
    assert b"x" in read_until(reading, b"the end")
    assert writer.flush(5)


@pytest.mark.slow
def test_dropped_lines_are_an_event_of_the_log(pipe: tuple[int, TextIO]) -> None:
    """The set-up of a process logs `log.dropped` with the number of lines."""
    reading, stream = pipe
    logs.configure(LogSettings(), stream)
    try:
        for _ in range(30_000):
            logs._log.info("log.level", text="x" * 300)
        assert logs.dropped() > 0
        assert b'"event":"log.dropped"' in read_until(reading, b"log.dropped")
    finally:
        logs.configure(LogSettings(), io.StringIO())


@pytest.mark.parametrize("kind", ["none", "closed", "broken"])
def test_a_stream_that_cannot_be_written_is_no_error(kind: str) -> None:
    """No stream, a closed one, a pipe whose reader has gone: lines are lost, and nothing else is."""
    stream: TextIO | None = None
    if kind == "closed":
        stream = io.StringIO()
        stream.close()
    elif kind == "broken":
        reading, writing = os.pipe()
        os.close(reading)
        stream = os.fdopen(writing, "w", encoding="utf-8")
    writer = LogWriter(stream, lambda _: None)
    writer.put("line\n")
    assert writer.flush(5)
    if stream is not None:
        stream.close()
