"""Every `connector` command that a document shows exists, with its options and arguments."""

from __future__ import annotations

import re
import shlex

import pytest
import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from connector.cli.main import app
from tools.source import ROOT, tracked

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`(connector [a-z][^`]*)`")


def shown() -> list[tuple[str, str]]:
    """Return each page with each command line of it that begins with `connector`, alone or in a pod."""
    found = []
    for path in tracked():
        if path.suffix != ".md" or path.name == "CHANGELOG.md":
            continue
        text = (ROOT / path).read_text(encoding="utf-8")
        blocks = "\n".join(_BLOCK.findall(text)).replace("\\\n", " ").splitlines()
        lines = [line.partition(" -- ")[2] if line.startswith("kubectl exec") else line for line in blocks]
        lines += [" ".join(line.split()) for line in _INLINE.findall(text)]
        found += [(str(path), line) for line in lines if line.startswith("connector ")]
    return sorted(set(found))


@pytest.mark.parametrize(("page", "line"), shown())
def test_documented_command_exists(page: str, line: str) -> None:
    """The command line is understood, without being run. Kills: a renamed option that a page still shows."""
    words = [
        {"VENDOR": "jiguang", "TIME": "2h"}.get(word, "1" if word.isupper() else word)
        for word in shlex.split(re.split(r" [|>] | &$", line)[0], comments=True)[1:]
    ]
    if not words or any(word in {"…", "..."} or "{" in word for word in words):
        return
    command = typer.main.get_command(app)
    names = ["connector"]
    while isinstance(command, TyperGroup) and words and not words[0].startswith("-"):
        names.append(words.pop(0))
        found = command.commands.get(names[-1])
        assert found is not None, f"{page}: there is no command {' '.join(names)}"
        command = found
    try:
        command.make_context(" ".join(names), words)
    except (RuntimeError, TyperException) as error:
        # Help was requested, or a sentence names the command without its arguments: no class of Typer's names these.
        if type(error).__name__ not in ("Exit", "MissingParameter", "NoArgsIsHelpError"):
            pytest.fail(f"{page}: {line}: {type(error).__name__} {error}")
