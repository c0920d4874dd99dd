# SPDX-License-Identifier: Apache-2.0
"""Builds a Containerfile without a container engine: mmdebstrap is FROM, chroot is RUN.

It knows the instructions that deploy/Containerfile has, and stops at any other. What takes long
(FROM and RUN) is kept in CACHE under a name made of all that it depends on.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CACHE = Path("/var/cache/probetop-tests")
BASE = "debian:"
RECIPE = "1"
"""Changes when images that this builder made are of no use any more."""


@dataclass(slots=True)
class Stage:
    """An image that is being made: its root, and what is said of how to run it."""

    root: Path
    key: str
    env: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    user: str = "root"
    health: list[str] = field(default_factory=list)


def instructions(text: str) -> list[tuple[str, str]]:
    """Every instruction of a Containerfile and the rest of its line."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ").splitlines()
    words = (line.strip().partition(" ") for line in joined if line.strip())
    return [(word, " ".join(rest.split())) for word, _, rest in words]


def build(containerfile: Path, context: Path, work: Path) -> Stage:
    """The last stage of a Containerfile, made below `work`."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for word, rest in instructions(containerfile.read_text()):
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            stage = _from(image, work / f"stage{len(stages)}")
            stages[name or str(len(stages))] = stage
            continue
        assert stage is not None, f"{word} before FROM"
        _carry_out(stage, word, rest, context, stages)
    assert stage is not None
    return stage


def _carry_out(stage: Stage, word: str, rest: str, context: Path, stages: dict[str, Stage]) -> None:
    if word == "RUN":
        _cached(stage, rest, lambda: _run(stage, rest))
    elif word == "COPY":
        _copy(stage, shlex.split(rest), context, stages)
    elif word == "ENV":
        name, _, value = rest.partition("=")
        stage.env[name] = value
    elif word == "ENTRYPOINT":
        stage.entrypoint = json.loads(rest)
    elif word == "CMD":
        stage.command = json.loads(rest)
    elif word == "USER":
        stage.user = rest
    elif word == "HEALTHCHECK":
        stage.health = json.loads(rest[rest.index("[") :])
    else:
        raise AssertionError(f"{word} is not known to {__name__}")


def _from(image: str, root: Path) -> Stage:
    match = re.fullmatch(rf"{BASE}([a-z]+)-slim", image)
    assert match is not None, f"{image} is no Debian"
    suite = match[1]
    stage = Stage(root, hashlib.sha256(f"{RECIPE} {suite}".encode()).hexdigest())

    def bootstrap() -> None:
        # As the image has it: without documentation.
        paths = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
        without = [f"--dpkgopt=path-exclude={path}" for path in paths]
        command = ["mmdebstrap", "--quiet", "--variant=apt", *without, suite, str(root), _mirror()]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)

    _cached(stage, "FROM", bootstrap)
    return stage


def _mirror() -> str:
    """Where this machine has its Debian packages from."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return next(uri for uri in done.stdout.split() if "security" not in uri)


def _cached(stage: Stage, what: str, make: Callable[[], None]) -> None:
    stage.key = hashlib.sha256(f"{stage.key} {what}".encode()).hexdigest()
    kept = CACHE / stage.key[:20]
    if kept.is_dir():
        shutil.rmtree(stage.root, ignore_errors=True)
        subprocess.run(["cp", "-a", "--reflink=auto", kept, stage.root], check=True)
        os.utime(kept)
        return
    make()
    CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Only what is whole has its name: who is interrupted leaves a temporary one.
    new = tempfile.mkdtemp(prefix="new-", dir=CACHE)
    subprocess.run(["cp", "-a", "--reflink=auto", f"{stage.root}/.", new], check=True)
    with contextlib.suppress(OSError):
        os.rename(new, kept)
        os.utime(kept)
    _tidy()


def _tidy(keep: int = 6) -> None:
    """Forget what was not used for the longest time."""
    kept = sorted(CACHE.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in kept[keep:]:
        shutil.rmtree(path, ignore_errors=True)


def _copy(stage: Stage, words: Sequence[str], context: Path, stages: dict[str, Stage]) -> None:
    source = context
    if words[0].startswith("--from="):
        other = stages[words[0].partition("=")[2]]
        source, words = other.root, words[1:]
    *names, target = words
    for name in names:
        path = source / name.lstrip("/")
        to = stage.root / target.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, to, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")
                            if source is context else None)  # fmt: skip
        else:
            to = to / path.name if target.endswith("/") else to
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, to)
    stage.key = hashlib.sha256(f"{stage.key} {_hash(stage.root, words[-1])}".encode()).hexdigest()


def _hash(root: Path, target: str) -> str:
    """What has been copied, for all that comes after it."""
    found = hashlib.sha256()
    top = root / target.lstrip("/")
    for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
        found.update(str(path.relative_to(root)).encode())
        if path.is_file() and not path.is_symlink():
            found.update(path.read_bytes())
    return found.hexdigest()


def _run(stage: Stage, command: str) -> None:
    with _network(stage.root) as environment:
        script = 'mount -t proc proc "$1/proc"; mount --bind /dev "$1/dev"; chroot "$1" sh -ec "$2"'
        done = subprocess.run(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh",
             str(stage.root), command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, env=environment, check=False,
        )  # fmt: skip
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@contextlib.contextmanager
def _network(root: Path) -> Iterator[dict[str, str]]:
    """What an engine lends a RUN: names are resolved, and certificates that this machine trusts.

    Gone again afterwards, for no image should have them.
    """
    lent = {"/etc/resolv.conf": "/etc/resolv.conf"}
    authorities = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE") or ""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND": "noninteractive"}
    if os.path.isfile(authorities):
        lent[authorities] = "/run/authorities.pem"
        environment["PIP_CERT"] = "/run/authorities.pem"
    for name, target in lent.items():
        to = root / target.lstrip("/")
        to.unlink(missing_ok=True)
        shutil.copyfile(name, to)
    try:
        yield environment
    finally:
        for target in lent.values():
            (root / target.lstrip("/")).unlink(missing_ok=True)
