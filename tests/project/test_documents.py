"""Documents are correct: generated parts are current, links and paths exist, promises have proofs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tools.docs import DECISIONS, DESIGN, PACKAGES, PROMISES, VENDORS, current, promised, proofs
from tools.source import ROOT, tracked

PAGES = {str(path): (ROOT / path).read_text(encoding="utf-8") for path in tracked() if path.suffix == ".md"}
PROOFS = proofs()
BLOCK = re.compile(r"^<!-- (run|check) -->\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
GENERATED = {"connector/_avro", "benchmarks/results.jsonl"}
"""Paths that exist only in a wheel or after a run."""
BLOCKS = [(page, *block) for page, text in PAGES.items() for block in BLOCK.findall(text)]


@pytest.mark.parametrize("document", [DESIGN, PROMISES, DECISIONS, VENDORS], ids=str)
def test_generated_parts_are_current(document: Path) -> None:
    """The file map, the test lists, the list of decisions and the tables of the vendors are what `make docs` writes."""
    text = (ROOT / document).read_text(encoding="utf-8")
    assert text == current(document, text), "run make docs"


@pytest.mark.parametrize("promise", promised(PAGES[str(PROMISES)]))
def test_every_promise_has_a_proof(promise: str) -> None:
    """Every entry of docs/promises.md has a test with its id."""
    assert [proof for proof in PROOFS if proof.promise == promise], f"no test is marked {promise}"


def test_every_mark_names_a_promise() -> None:
    """Every id in a test mark exists in docs/promises.md."""
    known = set(promised(PAGES[str(PROMISES)]))
    assert [proof for proof in PROOFS if proof.promise not in known] == []


def test_every_proof_names_what_it_kills() -> None:
    """The docstring of each marked test names the code change that it catches."""
    assert [f"{proof.path}::{proof.test}" for proof in PROOFS if "Kills:" not in proof.docstring] == []


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith((".github", "docs/decisions/0"))])
def test_a_page_begins_with_what_it_is_for(page: str) -> None:
    """After its title a page has a sentence: no heading, table, list or code comes first."""
    title, _, rest = PAGES[page].partition("\n")
    assert title.startswith("# ")
    assert not rest.lstrip().startswith(("#", "|", "- ", "```", "<"))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_existing_targets(page: str) -> None:
    """Every relative link of a page leads to an existing file or folder, and to an existing heading."""
    text = re.sub(r"```.*?```", "", PAGES[page], flags=re.DOTALL)
    wrong = []
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)", text):
        name, _, heading = target.partition("#")
        path = (ROOT / page).parent.joinpath(name) if name else ROOT / page
        if not path.exists() or (heading and heading not in headings(path.read_text(encoding="utf-8"))):
            wrong.append(target)
    assert wrong == []


def headings(text: str) -> set[str]:
    """Return the anchors of a page's headings."""
    found = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_named_files_exist(page: str) -> None:
    """Every path below one of the project's folders that a page names exists."""
    top = r"(?:connector|tests|tools|benchmarks|helm|docs|avro)"
    inside = "|".join(re.escape(name) for name in PACKAGES if name)
    named = re.findall(rf"`({top}/[\w./-]+)(?:::\w+)?`", PAGES[page])
    named += [f"connector/{name}" for name in re.findall(rf"`((?:{inside})/\w+\.pyx?)`", PAGES[page])]
    assert [name for name in named if name not in GENERATED and not (ROOT / name).exists()] == []


@pytest.mark.parametrize(("page", "kind", "block"), BLOCKS, ids=[f"{block[0]}-{n}" for n, block in enumerate(BLOCKS)])
def test_marked_blocks_work(page: str, kind: str, block: str, tmp_path: Path) -> None:
    """A block marked `run` runs in a shell in the project's folder; one marked `check` is a valid configuration."""
    if kind == "check":
        (tmp_path / "connector.yaml").write_text(block, encoding="utf-8")
        block = f"connector check -c {tmp_path / 'connector.yaml'}"
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "JIGUANG_SECRET": "a-secret", "NO_COLOR": "1"}
    command = ["bash", "-euo", "pipefail", "-c", block]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{page}: {block}\n{done.stdout}{done.stderr}"


def test_readme_has_executed_blocks() -> None:
    """README.md has at least one command and one configuration that the test above runs."""
    assert {kind for page, kind, _ in BLOCKS if page == "README.md"} == {"run", "check"}
