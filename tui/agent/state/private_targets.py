# SPDX-License-Identifier: Apache-2.0
"""Decides which targets are private: those in files that not every user can read.

A path is public if every user may search all directories on its way, symbolic links included, and
read the file at its end. For readers, a label replaces any other path in a target.
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
"""Seconds that a check may take; a target stays private until its file system has answered."""
FRESH_SECONDS = 60.0
"""Seconds that an answer is valid, because permissions change."""
MOST_CHECKS = 4
"""Most checks at a time: a file system that does not answer blocks its thread."""
MOST_KNOWN = 1024
"""Most targets whose answers and labels are kept."""
MOST_LINKS = 40
"""Most symbolic links of one path, as in the kernel."""
LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class PrivateTargets:
    """Decides which targets are private, and labels them.

    A target is private until `learn`, which runs on the event loop, finds that it is not.
    """

    def __init__(self) -> None:
        self._public: dict[str, float] = {}
        self._labels: dict[str, str] = {}
        self._numbers = 0
        self._lock = threading.Lock()
        self._checks = threading.Semaphore(MOST_CHECKS)

    async def learn(self, texts: Iterable[str]) -> None:
        """Check the files of targets, unless their file system takes too long."""
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
            with suppress(RuntimeError):  # the loop was closed in the meantime
                loop.call_soon_threadsafe(tell, public)

        # A daemon thread, because a blocked file system must not delay the exit.
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
        """True if only clients with control may see the target."""
        return text not in self._public and bool(_paths(text))

    def label(self, text: str) -> str:
        """The text that readers see: the target, or its kind and a number."""
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
    """True if the target is in the file of a program or library."""
    return _parsed(text) is None or bool(_files(text))


@lru_cache(MOST_KNOWN)
def _paths(text: str) -> tuple[str, ...]:
    """The paths that a target names; a text that is not a target counts as one."""
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
    """True if every user could open the file at this path for reading.

    A path through /proc names another file for each process, and counts as private.
    """
    if not path.startswith("/") or "\0" in path:
        return False
    try:
        status = _walked(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & stat.S_IROTH)


def _walked(path: str) -> os.stat_result:
    """The status of the file at a path; raises OSError if not every user can reach it."""
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
