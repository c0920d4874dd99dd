# SPDX-License-Identifier: Apache-2.0
"""The kernels that guests boot and the roots that they see, from Debian's archive.

Nothing is installed and the host's own apt state stays as it is: packages are looked up and
downloaded with a private apt state and unpacked below CACHE, once.

    python -m tests.vm.kernels NAME...      prints which kernels these names choose
"""

from __future__ import annotations

import fcntl
import itertools
import lzma
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.paths import ROOT

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "probetop" / "vm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
"""Debian's names of architectures, and those that uname and QEMU use."""

ROOT_SUITES = ("bookworm", "bookworm-security")
ROOT_PACKAGES = (
    *("base-files", "base-passwd", "busybox-static", "coreutils", "dash", "findutils", "grep"),
    *("kmod", "libc-bin", "linux-perf", "mount", "procps", "python3", "python3-bpfcc", "sed"),
    "util-linux",
)


class Unavailable(Exception):
    """Guests cannot run here: why, and what to do."""


@dataclass(frozen=True)
class Kernel:
    """A Debian kernel: `arch` is Debian's name, `version` the beginning of its release.

    `pmu`: in a machine with hardware counters, where the tests of those are run.
    """

    arch: str
    version: str
    suites: tuple[str, ...]
    pmu: bool = False

    @property
    def name(self) -> str:
        """What a user types, such as x86_64-6.12."""
        return self.package + ("-pmu" if self.pmu else "")

    @property
    def package(self) -> str:
        """Architecture and version: kernels with the same are the same files."""
        return f"{'x86_64' if self.arch == 'amd64' else self.arch}-{self.version}"


_ALL = (
    Kernel("amd64", "5.10", ("bullseye",)),
    Kernel("amd64", "6.1", ROOT_SUITES),
    Kernel("amd64", "6.12", ROOT_SUITES),
    Kernel("amd64", "7.3", ("trixie-backports",)),
    Kernel("arm64", "6.1", ROOT_SUITES),
    Kernel("arm64", "6.12", ROOT_SUITES),
    Kernel("arm64", "6.12", ROOT_SUITES, pmu=True),
)
KERNELS = {kernel.name: kernel for kernel in _ALL}
DEFAULT = ("x86_64-6.12", "arm64-6.12", "arm64-6.12-pmu")
CHECKOUT = ROOT


@dataclass(frozen=True)
class Boot:
    """What a guest starts from: `image` for QEMU, kernel `modules`, and its `root` directory."""

    kernel: Kernel
    release: str
    image: Path
    modules: Path
    root: Path

    @property
    def busybox(self) -> Path:
        """A static busybox for the guest's first process."""
        return self.root / "bin" / "busybox"

    @property
    def python(self) -> str:
        """The guest's interpreter: this one, or in a root of its own that of Debian."""
        native = self.root == Path("/")
        return os.path.realpath(sys.executable) if native else "/usr/bin/python3"


def choose(words: Sequence[str]) -> list[Kernel]:
    """The kernels of these names: "all", "default", "turn" or those of KERNELS.

    Raises ValueError for any other word, and for "turn" outside of a git checkout.
    """
    chosen: dict[str, Kernel] = {}
    for word in words:
        names = {"all": tuple(KERNELS), "default": DEFAULT}.get(word, (word,))
        if word == "turn":
            names = turn(_commit())
        for name in names:
            if name not in KERNELS:
                known = ", ".join((*KERNELS, "default", "turn", "all"))
                raise ValueError(f"no kernel is called {name!r}: choose from {known}")
            chosen[name] = KERNELS[name]
    return list(chosen.values())


def turn(commit: str) -> tuple[str, ...]:
    """The names of two kernels that a commit's hash chooses, and of the machine with counters.

    All pairs are equally likely, so that a few commits reach every kernel, and the same commit
    always boots the same ones.
    """
    plain = [name for name, kernel in KERNELS.items() if not kernel.pmu]
    counters = [name for name, kernel in KERNELS.items() if kernel.pmu]
    pairs = list(itertools.combinations(plain, 2))
    return (*pairs[int(commit, 16) % len(pairs)], *counters)


def _commit() -> str:
    # Root may run the tests in somebody else's checkout, which git refuses to read otherwise.
    command = ["git", "-c", f"safe.directory={CHECKOUT}", "rev-parse", "HEAD"]
    try:
        return _output(command, cwd=CHECKOUT).strip()
    except Unavailable as error:
        raise ValueError(f"'turn' needs the checkout's commit, but {error}") from None


def newest(packages: Sequence[str], kernel: Kernel) -> str | None:
    """The newest of the archive's images that is this kernel, for real (not cloud) machines."""
    wanted = re.compile(
        rf"linux-image-{re.escape(kernel.version)}\.\d[^-]*(-\d+)?-{kernel.arch}(?!.)"
    )
    fitting = [package for package in packages if wanted.match(package)]
    return max(fitting, key=lambda p: [int(n) for n in re.findall(r"\d+", p)], default=None)


class Apt:
    """apt for an architecture and suites of Debian, with a state of its own."""

    def __init__(self, arch: str, suites: Sequence[str]) -> None:
        self.home = CACHE / f"apt-{arch}-{'-'.join(suites)}"
        self.archives = self.home / "archives"
        settings = {
            "APT::Architecture": arch,
            "APT::Architectures": arch,
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Dir::State": self.home,
            "Dir::State::lists": self.home / "lists",
            "Dir::State::status": self.home / "status",
            "Dir::Cache": self.home,
            "Dir::Cache::archives": self.archives,
            "Dir::Etc::sourcelist": self.home / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
        }
        self.options = [f"-o{name}={value}" for name, value in settings.items()]
        for directory in ("lists", "archives"):
            (self.home / directory / "partial").mkdir(parents=True, exist_ok=True)
        (self.home / "status").touch()
        lines = [f"deb [signed-by={KEYRING}] {_archive(s)} {s} main\n" for s in suites]
        (self.home / "sources.list").write_text("".join(lines))
        self.get("update")

    def get(self, *words: str, cwd: Path | None = None) -> None:
        """apt-get WORDS."""
        _output(["apt-get", "-qq", "-y", *self.options, *words], cwd=cwd)

    def cache(self, *words: str) -> str:
        """What apt-cache WORDS prints."""
        return _output(["apt-cache", *self.options, *words])


def prepare(kernel: Kernel) -> Boot:
    """Kernel and root, downloaded and unpacked if they are not in the cache.

    Raises Unavailable when a tool, the network or the archive is missing.
    """
    with _lock():
        here = CACHE / "kernels" / kernel.package
        if not here.is_dir():
            with _new(here) as directory:
                _unpack_kernel(kernel, directory)
        release = (here / "release").read_text()
        root = _root(kernel.arch)
    return Boot(kernel, release, here / "image", here / "lib" / "modules" / release, root)


def _unpack_kernel(kernel: Kernel, directory: Path) -> None:
    apt = Apt(kernel.arch, kernel.suites)
    package = newest(apt.cache("pkgnames", "linux-image-").split(), kernel)
    if package is None:
        where = f"{_archive(kernel.suites[0])} {' '.join(kernel.suites)}"
        raise Unavailable(f"there is no kernel {kernel.version} in {where}: is it reachable?")
    release = package.removeprefix("linux-image-")
    # Newer packages have the image, the modules and the configuration apart.
    depends = apt.cache("show", "--no-all-versions", package)
    parts = re.findall(rf"\blinux-(?:binary|modules|base)-{re.escape(release)}(?![\w.+-])", depends)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        apt.get("download", package, *sorted(set(parts)), cwd=Path(work))
        for deb in Path(work).glob("*.deb"):
            _output(["dpkg-deb", "-x", str(deb), work])
        modules = next(p for p in Path(work).glob(f"**/modules/{release}") if p.is_dir())
        shutil.move(modules, directory / "lib" / "modules" / release)
        own = directory / "lib" / "modules" / release / "vmlinuz"
        image = own if own.exists() else Path(work, "boot", f"vmlinuz-{release}")
        data = image.read_bytes()
    _output(["depmod", "-b", str(directory), release])
    (directory / "image").write_bytes(vmlinux(data) if kernel.arch == "amd64" else data)
    (directory / "release").write_text(release)


def vmlinux(image: bytes) -> bytes:
    """The ELF kernel in a bzImage, which starts seconds sooner; an unknown image as it is.

    The setup header has the payload's place (Documentation/arch/x86/boot.rst, from 2.08).
    """
    if image[0x202:0x206] != b"HdrS":
        return image
    offset, length = struct.unpack_from("<II", image, 0x248)
    payload = image[((image[0x1F1] or 4) + 1) * 512 + offset :][:length]
    if payload.startswith(b"\xfd7zXZ\0"):
        return lzma.LZMADecompressor().decompress(payload)
    if payload.startswith(b"\x1f\x8b"):
        return zlib.decompressobj(31).decompress(payload)
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        # The kernel's build appends the length, which zstd takes for garbage.
        return unzstd(payload[:-4])
    return image


def unzstd(data: bytes) -> bytes:
    """What zstd had compressed."""
    try:
        return subprocess.run(["zstd", "-dqc"], input=data, stdout=-1, check=True).stdout
    except FileNotFoundError:
        raise Unavailable("zstd is missing: as root, ./test.sh --vm installs it") from None


def _root(arch: str) -> Path:
    """This machine's root for its own architecture, else Debian's packages, only unpacked."""
    if MACHINES[arch] == platform.machine():
        return Path("/")
    # Other packages make another root.
    root = CACHE / f"root-{arch}-{zlib.crc32(' '.join(ROOT_PACKAGES).encode()):08x}"
    if not root.is_dir():
        with _new(root) as directory:
            _unpack_root(arch, directory)
    return root


def _unpack_root(arch: str, root: Path) -> None:
    apt = Apt(arch, ROOT_SUITES)
    apt.get("--no-install-recommends", "--download-only", "install", *ROOT_PACKAGES)
    for name in ("usr/bin", "usr/sbin", "usr/lib", "proc", "sys", "dev", "run", "tmp", "root"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib"):
        (root / name).symlink_to(f"usr/{name}")
    for deb in sorted(apt.archives.glob("*.deb")):
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=-1) as packed:
            subprocess.run(
                ["tar", "-x", "-C", root, "--keep-directory-symlink"],
                stdin=packed.stdout,
                check=True,
            )
        deb.unlink()
    for name in ("passwd", "group"):
        shutil.copy(root / f"usr/share/base-passwd/{name}.master", root / "etc" / name)
    if not (root / "bin/sh").exists():
        (root / "bin/sh").symlink_to("dash")
    for name in ("doc", "man", "locale", "info", "perl", "i18n"):
        shutil.rmtree(root / "usr/share" / name, ignore_errors=True)
    # No maintainer script has run: without byte code every start would compile the library.
    library = f"python{sys.version_info.major}.{sys.version_info.minor}"
    if (root / "usr/lib" / library).is_dir():
        compiling = [sys.executable, "-m", "compileall", "-q", "-s", str(root)]
        for name in (library, "python3"):
            subprocess.run([*compiling, str(root / "usr/lib" / name)], stdout=-3, stderr=-3)


def _archive(suite: str) -> str:
    """Where this machine's apt gets Debian's packages (or its security updates) from."""
    lines = _output(["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE)"])
    security = suite.endswith("-security")
    for uri, _, release in (line.partition(" ") for line in lines.splitlines()):
        if uri.rstrip("/").endswith("/debian-security" if security else "/debian"):
            return uri
        if security and release.endswith("-security"):
            return uri
    raise Unavailable("apt knows no archive of Debian: add one to /etc/apt/sources.list")


def _output(command: Sequence[str], cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, stdin=-3, stdout=-1, stderr=-1, text=True)
    except FileNotFoundError:
        raise Unavailable(f"{command[0]} is missing: as root, ./test.sh --vm installs it") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"status {done.returncode}"]
        raise Unavailable(f"{command[0]} failed: {said[0]}")
    return done.stdout


@contextmanager
def _lock() -> Iterator[None]:
    """Two runs at once fill the cache one after the other."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _new(path: Path) -> Iterator[Path]:
    """A directory that becomes `path` when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=CACHE))
    try:
        yield work
        work.chmod(0o755)
        work.rename(path)
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    try:
        print(*(kernel.name for kernel in choose(sys.argv[1:])))
    except ValueError as unknown:
        sys.exit(f"probetop: {unknown}")
