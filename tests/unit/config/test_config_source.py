"""YAML is read without surprises, and references are resolved or reported."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.config.yaml import MAX_FILE_BYTES, MAX_VALUES, Resolver, parse, read_text
from connector.errors import ConfigFault


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0123", "0123"),
        ("100102", 100102),
        ("-5", -5),
        ("1e5", "1e5"),
        ("96441e4", "96441e4"),
        ("1.5", 1.5),
        ("no", "no"),
        ("off", "off"),
        ("True", True),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-11-20", "2026-11-20"),
        ("2026-11-20T00:00:00Z", "2026-11-20T00:00:00Z"),
        ("~", None),
        ("", None),
        ('""', ""),
        ("'12'", "12"),
        ("!!str 12", "12"),
    ],
)
def test_scalars_keep_what_was_written(text: str, value: object) -> None:
    """An id, a country code or a time is never turned into something else."""
    tree, faults, _ = parse(f"key: {text}\n")
    assert (tree, faults) == ({"key": value}, [])
    assert type(tree["key"]) is type(value)


def test_keys_are_text() -> None:
    """A vendor's code works as a key without quotes."""
    assert parse("{4101: retry, true: x, 1.5: y}")[0] == {"4101": "retry", "true": "x", "1.5": "y"}


def test_duplicate_keys_are_faults_with_path_and_line() -> None:
    """Each duplicate key is reported with its own line and the line of the first one."""
    _, faults, _ = parse("a: {b: 1,\n  b: 2}\nl:\n- {c: 1, c: 1}\na: 3\n")
    assert list(map(str, faults)) == [
        "a.b: duplicate key; it is also on line 1 (line 2)",
        "l[0].c: duplicate key; it is also on line 4 (line 4)",
        "a: duplicate key; it is also on line 1 (line 5)",
    ]


def test_every_path_has_its_line() -> None:
    """A key's line is where the key is, a list entry's where the entry begins."""
    assert parse("a:\n  b: 1\nl:\n- x\n- c: >\n    text\n").lines == {
        "": 1,
        "a": 1,
        "a.b": 2,
        "l": 3,
        "l[0]": 4,
        "l[1]": 5,
        "l[1].c": 5,
    }


def test_merged_defaults_yield_to_own_keys() -> None:
    """`<<` gives defaults, the first of several counts, and overriding one is no duplicate."""
    tree, faults, _ = parse("a: &a {x: 1, y: 1}\nb: &b {x: 2, z: 2}\nc: {x: 3, <<: [*a, *b]}\nd: {<<: *b}\n")
    assert faults == []
    assert tree["c"] == {"x": 3, "y": 1, "z": 2}
    assert tree["d"] == {"x": 2, "z": 2}


@pytest.mark.parametrize(
    ("text", "where", "said"),
    [
        ("a: [1", "line 1, column 6", "invalid YAML"),
        ("a: {b: c[].d}", "line 1, column 9", "quote a path with [] inside braces or brackets"),
        ("a: 1\nb: c: d", "line 2, column 5", "mapping values are not allowed"),
        ("\ta: 1", "line 1, column 1", "cannot start any token"),
        ("a: 1\n---\nb: 1", "line 2, column 1", "another document"),
        ("a: &x [*x]", "a[0]", "refers to something that contains it"),
        ("a: !vault x", "a", "tag is not supported"),
        ("a: !!int x", "a", "not a valid number"),
        ("{[a]: b}", "", "a key must be a string"),
        ("a: {<<: 3}", "a.<<", "must be a mapping"),
        ("a: \x01", "", "control character at position 3"),
        ('a: {b: "x\\ud800"}', "a.b", "half of a character"),
        ('"x\\udfff": 1', "", "half of a character"),
    ],
)
def test_broken_yaml_names_its_place(text: str, where: str, said: str) -> None:
    """A syntax error has line and column, anything else its path."""
    fault = parse(text)[1][0]
    assert fault.path == where
    assert said in fault.message


@pytest.mark.parametrize(
    "text", ["*hunter22", "!hunter22 x", "&hunter22 x\nother: &hunter22 y", "%hunter22", "@hunter22"]
)
def test_a_password_without_quotes_is_not_repeated(text: str) -> None:
    """A secret that YAML takes for an alias, a tag or an anchor stays out of the message."""
    _, faults, _ = parse(f"password: {text}")
    assert faults
    assert "hunter22" not in str(faults)


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_has_a_fault(text: str) -> None:
    """No input makes the reader raise."""
    tree, faults, _ = parse(text)
    assert isinstance(faults, list)
    assert tree is None or not faults or isinstance(tree, dict | list | str | int | float)


def resolve(value: object, folder: Path = Path(), **env: str) -> tuple[object, list[ConfigFault]]:
    """Resolve a value standing at `at`."""
    faults: list[ConfigFault] = []
    return Resolver(env, folder).resolve(value, "at", faults), faults


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("${NAME}", "value"),
        ("a ${NAME} b ${NAME}", "a value b value"),
        ("${NONE:-other}", "other"),
        ("${EMPTY:-other}", "other"),
        ("${EMPTY}", ""),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b}", "a:-b"),
        ("$${NAME}", "${NAME}"),
        ("$${x ${NAME}}", "${x value}"),
        ("^a$ $key $header.x", "^a$ $key $header.x"),
    ],
)
def test_references_are_resolved(text: str, resolved: str) -> None:
    """Variables, defaults and escapes give what the documentation says, also inside longer texts."""
    assert resolve(text, NAME="value", EMPTY="") == (resolved, [])


def test_references_are_resolved_at_every_depth() -> None:
    """Lists and mappings are walked; keys and what is no text stay."""
    value = {"${NAME}": ["${NAME}", 1, None, True]}
    assert resolve(value, NAME="value") == ({"${NAME}": ["value", 1, None, True]}, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${NONE}", "the environment variable NONE is not set"),
        ("x ${NONE", "without a closing }"),
        ("${}", "write ${NAME}"),
        ("${NAME:-${NONE}", None),
        ("${a-b}", "write ${NAME}"),
        ("${file:missing}", "the file missing cannot be read: No such file or directory"),
        ("${file:bad\0name}", "cannot be read"),
    ],
)
def test_what_is_missing_is_named_with_its_path(text: str, said: str | None, tmp_path: Path) -> None:
    """A reference that cannot be resolved names the variable or the file, and the place that uses it."""
    _, faults = resolve({"key": text}, tmp_path, NAME="value")
    if said is None:
        assert faults == []
    else:
        assert [fault.path for fault in faults] == ["at.key"]
        assert said in faults[0].message


def test_a_file_gives_its_text_without_the_last_newline(tmp_path: Path) -> None:
    """One newline at the end is an editor's; others belong to the secret."""
    for content, expected in ((b"s\n", "s"), (b"s\r\n", "s"), (b"s\n\n", "s\n"), (b"s", "s"), ("é".encode(), "é")):
        (tmp_path / "secret").write_bytes(content)
        assert resolve("<${file:secret}>", tmp_path) == (f"<{expected}>", [])


def test_a_file_that_cannot_be_a_secret_is_refused(tmp_path: Path) -> None:
    """A file that is too large or not text is named, and not mangled."""
    (tmp_path / "large").write_bytes(b"x" * (MAX_FILE_BYTES + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert "larger than" in resolve("${file:large}", tmp_path)[1][0].message
    assert "not UTF-8" in resolve("${file:binary}", tmp_path)[1][0].message
    assert "directory" in resolve("${file:.}", tmp_path)[1][0].message


def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    """A pipe without a writer does not block, and a device without an end is not read."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(ValueError, match="is not a regular file"):
            read_text(path)
    assert "not a regular file" in resolve("${file:pipe}", tmp_path)[1][0].message


def test_aliases_do_not_expand_without_bound() -> None:
    """Nine levels of nine aliases are one fault, soon; an honest number of aliases is none."""
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
    tree, faults, _ = parse(bomb)
    assert (tree, [fault.message for fault in faults]) == (
        None,
        [f"the file has more than {MAX_VALUES} values once its aliases are expanded; write fewer aliases"],
    )
    assert parse("a: &a [1, 2]\nb: [" + "*a, " * 1000 + "]")[1] == []


def test_long_keys_do_not_take_memory_for_each_value_below_them() -> None:
    """A long key, whose path every value below it keeps, is one fault. Kills: a bound of values but not of paths."""
    bomb = f'? "{"k" * 100_000}"\n: [{"1, " * 1000}]'
    tree, faults, _ = parse(bomb)
    assert (tree, [fault.message for fault in faults]) == (
        None,
        ["the file has keys that are too long for so many values; write shorter keys"],
    )
    assert parse(f"{'k' * 500}: [{'1, ' * 1000}]")[1] == []


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{a: ", "}"), ("- ", "")])
def test_deep_nesting_is_a_fault_with_its_place(opening: str, closing: str) -> None:
    """A file that is nested without end is a fault like any other, not a traceback."""
    (fault,) = parse(opening * 3000 + "x" + closing * 3000)[1]
    assert fault.path.startswith("line 1, column ")
    assert fault.message == "invalid YAML: nested more than 64 levels deep"
    assert parse("[" * 60 + "]" * 60)[1] == []


@given(st.text(alphabet="${}:-aN", max_size=30))
def test_escaping_every_reference_gives_the_text_itself(text: str) -> None:
    """Whatever a text holds can be written: `$${` for each `${`. Kills taking an escape's rest for a reference."""
    assert resolve(text.replace("${", "$${"), N="x") == (text, [])
