"""The image without an engine: its Dockerfile is parsed, and its build steps run in a temporary folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.integration.job import wait_for
from tools.servers import ROOT, free_ports

pytestmark = pytest.mark.timeout(400)  # installs a whole environment


class Step(NamedTuple):
    """One instruction: its stage, its keyword, and its text on one line."""

    stage: str
    word: str
    text: str


def _steps() -> Iterator[Step]:
    """Yield the instructions of the Dockerfile, without comments and with joined lines."""
    lines = [
        line for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines() if not line.startswith("#")
    ]
    stage = ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, text = line.strip().partition(" ")
        if word == "FROM":
            stage = text.rpartition(" AS ")[2]
        if word:
            yield Step(stage, word, text.strip())


STEPS = list(_steps())


def _all(stage: str, word: str) -> list[str]:
    """Return the texts of a stage's instructions of one kind."""
    return [step.text for step in STEPS if (step.stage, step.word) == (stage, word)]


def _sources() -> list[list[str]]:
    """Return the sources and the target of each COPY in the build stage."""
    return [text.split() for text in _all("build", "COPY")]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run every COPY and RUN of the build stage except apt, in a temporary folder. Returns the environment."""
    folder = tmp_path_factory.mktemp("image")
    source, target = folder / "src", folder / "connector"
    source.mkdir()
    python = {"PATH": f"{Path(sys.base_prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    outside = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}
    env = {**{name: value for name, value in os.environ.items() if name not in outside}, **python}
    for step in STEPS:
        if step.stage == "build" and step.word == "COPY":
            *taken, to = step.text.split()
            for name in taken:
                goal = source / to / Path(name).name if to.endswith("/") else source / to
                goal.parent.mkdir(parents=True, exist_ok=True)
                if (ROOT / name).is_dir():
                    shutil.copytree(ROOT / name, goal, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
                else:
                    shutil.copy(ROOT / name, goal)
        elif step.stage == "build" and step.word == "RUN" and not step.text.startswith("apt-get"):
            command = step.text.replace("/opt/connector", str(target))
            done = subprocess.run(
                ["sh", "-euc", command], cwd=source, env=env, capture_output=True, text=True, timeout=150, check=False
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return target


def test_copied_files_exist_and_are_not_ignored() -> None:
    """Each COPY names files that .dockerignore lets through, and it lets nothing else through."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_through = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    taken = {name for copy in _sources() for name in copy[:-1]}
    assert [name for name in taken if not (ROOT / name).exists()] == []
    assert ignored.index("*") < min(ignored.index(f"!{name}") for name in let_through)
    assert taken == let_through


def test_image_has_no_privileges_and_no_build_tools() -> None:
    """The last stage copies only the environment, runs as a numeric user, and forwards signals."""
    assert _all("run", "COPY") == ["--from=build /opt/connector /opt/connector"]
    uid = re.fullmatch(r"([1-9]\d+):[1-9]\d+", _all("run", "USER")[-1])
    assert uid is not None
    (run,) = _all("run", "RUN")
    assert f"--uid {uid[1]}" in run
    assert "pip uninstall" in run
    assert json.loads(_all("run", "ENTRYPOINT")[0])[:2] == ["tini", "--"]
    assert "--no-install-recommends tini" in run
    assert _all("run", "STOPSIGNAL") == ["SIGTERM"]


def test_every_package_is_hashed() -> None:
    """Only the install from the hashed requirements may download, and it takes no source packages."""
    installs = [text for text in _all("build", "RUN") if "pip install" in text]
    fetching = [text for text in installs if "--no-index" not in text]
    assert len(installs) == 3
    hashed = "pip install --require-hashes --only-binary :all: -r requirements/"
    assert [text.partition(hashed)[2] for text in fetching] == ["expressions.txt", "build.txt"]
    assert all("--no-index" in text for text in _all("build", "RUN") if "pip wheel" in text)


def test_labels_use_standard_names() -> None:
    """Title, description, licence, version and revision use their standard names."""
    keys = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", " ".join(_all("run", "LABEL"))))
    assert keys == {"title", "description", "licenses", "version", "revision"}


def test_built_environment_runs_like_the_image(environment: Path, tmp_path: Path) -> None:
    """The built environment starts by entry point and command, passes the health check, and stops on SIGTERM with 0."""
    entry, command = json.loads(_all("run", "ENTRYPOINT")[0]), json.loads(_all("run", "CMD")[0])
    assert sorted(path.name for path in (environment / "lib/python3.11/site-packages").glob("pip*")) == []
    installed = {path.name.lower() for path in (environment / "lib/python3.11/site-packages").iterdir()}
    assert not any(name.startswith(("hatchling", "cython", "setuptools")) for name in installed)
    assert list((environment / "lib/python3.11/site-packages/connector/codec").glob("reader.*.so")) != []
    port, broker = free_ports(2)
    settings = yaml.safe_load((ROOT / "connector.example.yaml").read_text(encoding="utf-8"))
    settings["kafka"]["client"]["bootstrap.servers"] = f"127.0.0.1:{broker}"
    settings["server"] = {"host": "0.0.0.0", "port": port}
    file = tmp_path / "connector.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    arguments = [str(file) if each == "/etc/connector/connector.yaml" else each for each in command]
    assert str(file) in arguments
    (health,) = _all("run", "HEALTHCHECK")
    env = {"PATH": f"{environment / 'bin'}", "PYTHONDONTWRITEBYTECODE": "1"}
    process = subprocess.Popen(
        [str(environment / "bin" / entry[2]), *arguments], cwd="/", env=env, stdout=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: process.poll() is not None or _answers(port), "the port")
        probe = [str(environment / "bin" / "python"), *json.loads(health[health.index("[") :])[1:]]
        for asked, code in ((port, 0), (broker, 1)):
            url = {"HEALTH_URL": f"http://127.0.0.1:{asked}/healthz"}
            assert subprocess.run(probe, env=env | url, capture_output=True, timeout=30, check=False).returncode == code
    finally:
        process.terminate()
        code = process.wait(60)
    assert code == 0


def test_the_demo_runs_in_the_image(environment: Path) -> None:
    """`docker run IMAGE demo` needs no home, no configuration and no package besides, and its totals are right."""
    entry = json.loads(_all("run", "ENTRYPOINT")[0])
    env = {"PATH": f"{environment / 'bin'}", "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(environment / "bin" / entry[2]), "demo"]
    done = subprocess.run(command, cwd="/", env=env, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "records produced" in done.stdout
    assert done.stderr == ""


def _answers(port: int) -> bool:
    """Whether HTTP is served there."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
