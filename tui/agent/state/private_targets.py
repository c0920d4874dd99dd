# SPDX-License-Identifier: Apache-2.0
"""Which targets only those who control the agent may see: those in files that not everybody sees.

A path is public if everybody may search all folders on its way, links followed, and read the file
at its end. Whatever else a target names as a path has a label in its place for readers.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache

from probes.core.errors import ProbeError
from probes.symbols import target_spec

CHECK_SECONDS = 1.0
"""How long is waited for a file system; what it did not answer by then stays private."""
FRESH_SECONDS = 60.0
"""How long an answer holds: folders are closed, too."""
MOST_CHECKS = 4
"""Checks at a time: a file system that answers nothing holds the thread that asks it."""
MOST_KNOWN = 1024
"""Targets whose answers and labels are kept."""
MOST_LINKS = 40
"""Links on the way of one path, as in the kernel."""
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class PrivateTargets:
    """Tells private targets from others, and names them; `learn` is for the event loop's thread.

    A target is private until `learn` has found that it is not.
    """

    def __init__(self) -> None:
        self._public: dict[str, float] = {}
        self._labels: dict[str, str] = {}
        self._numbers = 0
        self._lock = threading.Lock()
        self._checks = threading.Semaphore(MOST_CHECKS)

    async def learn(self, texts: Iterable[str]) -> None:
        """Look the files of targets up, unless their file system takes too long."""
        now = time.monotonic()
        unknown = [
            text
            for text in texts
            if now - self._public.get(text, -FRESH_SECONDS) >= FRESH_SECONDS and _paths(text)
        ]
        if not unknown or not self._checks.acquire(blocking=False):
            return
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[str]] = loop.create_future()

        def tell(public: list[str]) -> None:
            if not found.done():
                found.set_result(public)

        def check() -> None:
            try:
                public = [text for text in unknown if all(map(seen_by_all, _paths(text)))]
            finally:
                self._checks.release()
            with suppress(RuntimeError):  # the loop has closed meanwhile
                loop.call_soon_threadsafe(tell, public)

        # A daemon: one that the file system holds must not hold the end up.
        threading.Thread(target=check, daemon=True).start()
        public: list[str] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(CHECK_SECONDS):
                public = await found
        for text in unknown:
            self._public.pop(text, None)
        for text in public:
            self._public[text] = now
            _bound(self._public)

    def is_private(self, text: str) -> bool:
        """Whether a target may be seen by those who control the agent alone."""
        return text not in self._public and bool(_paths(text))

    def label(self, text: str) -> str:
        """What readers see of a target: itself, or its kind and a number."""
        if not self.is_private(text):
            return text
        with self._lock:
            known = self._labels.get(text)
            if known is None:
                self._numbers += 1
                known = self._labels[text] = f"{_kind(text)}:private-{self._numbers}"
                _bound(self._labels)
            return known


def _bound(known: dict[str, str] | dict[str, float]) -> None:
    while len(known) > MOST_KNOWN:
        del known[next(iter(known))]


@lru_cache(MOST_KNOWN)
def in_file(text: str) -> bool:
    """Whether a target is in the file of a program or library."""
    return _parsed(text) is None or bool(_files(text))


@lru_cache(MOST_KNOWN)
def _paths(text: str) -> tuple[str, ...]:
    """The paths that a target names; a text that is no target counts as one."""
    return tuple([path for path in _files(text) if "/" in path]) if _parsed(text) else (text,)


def _files(text: str) -> list[str]:
    """Paths and bare names of files that a target names."""
    spec = _parsed(text)
    parts = [] if spec is None else [spec, spec.end]
    return [part.path for part in parts if part is not None and part.path]


def _kind(text: str) -> str:
    spec = _parsed(text)
    return spec.kind if spec is not None else "target"


def _parsed(text: str) -> target_spec.Spec | None:
    try:
        return target_spec.parse(text)
    except ProbeError:
        return None


def seen_by_all(path: str) -> bool:
    """Whether every user could open a file by this path for reading.

    A path through /proc means another file for each who asks, and is none.
    """
    if not path.startswith("/") or "\0" in path:
        return False
    try:
        status = _walked(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_IROTH)


def _walked(path: str) -> os.stat_result:
    """The status of what a path leads to; raises OSError where not everybody may go."""
    at, links = os.open("/", LOOK), 0
    proc = _device("/proc")
    parts = path.split("/")[::-1]
    try:
        while True:
            status = os.fstat(at)
            while parts and parts[-1] in ("", "."):
                parts.pop()
            if not parts:
                return status
            if not status.st_mode & stat.S_IXOTH or status.st_dev == proc:
                raise PermissionError("not for everybody")
            part = parts.pop()
            inner = os.open(part, LOOK, dir_fd=at)
            if stat.S_ISLNK(os.fstat(inner).st_mode):
                links += 1
                try:
                    target = os.readlink("", dir_fd=inner)
                finally:
                    os.close(inner)
                if links > MOST_LINKS or not target:
                    raise OSError("too many links")
                parts += target.split("/")[::-1]
                if not target.startswith("/"):
                    continue
                inner = os.open("/", LOOK)
            os.close(at)
            at = inner
    finally:
        os.close(at)


def _device(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None
