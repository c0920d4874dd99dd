# SPDX-License-Identifier: Apache-2.0
"""Runs a command as root in another kernel: QEMU's emulation of a whole machine, without KVM.

    python -m tests.vm.machine [--write DIR] [--limit S] x86_64-6.12 COMMAND...

The guest sees this machine's root directory (or, for another architecture, a root of its
own and the checkout), can change nothing in it, and writes to the host only below --write.
Exit status: the command's, 124 after the time limit, 125 when the guest died.
"""

from __future__ import annotations

import argparse
import lzma
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.vm import kernels
from tests.vm.kernels import Boot, Unavailable

CHECKOUT = kernels.CHECKOUT
INIT = Path(__file__).with_name("init")
LIMITED, DIED = 124, 125
"""Statuses of a run that took too long, and of one whose guest did not report any."""

NEEDED = ("virtio_pci", "virtio_mmio", "virtio_console", "9p", "9pnet_virtio", "overlay")
"""Modules that a guest loads before it has a root; some kernels have some built in."""

# One CPU: with two, QEMU's parallel emulation races with the kernel's own text patching.
# Pointer authentication makes emulation five times slower.
QEMU = {
    "amd64": "qemu-system-x86_64 -machine pc -cpu max",
    "arm64": "qemu-system-aarch64 -machine virt,gic-version=3 -cpu max,pauth=off",
}
# QEMU counts instructions only when each takes the same virtual time, here 2 ns; a cycle is
# 1 ns, so that a program has 0.5 instructions a cycle, and its time is not the wall clock's.
PMU = "-icount shift=1"
COMMON = """-accel tcg -smp 1 -m 2048 -nodefaults -display none -no-reboot -monitor none -net none
    -device virtio-serial-pci"""
ARGUMENTS = {"amd64": "console=ttyS0 no_timer_check", "arm64": "console=ttyAMA0"}
QUIET = "quiet panic=-1 mitigations=off audit=0 nokaslr"


@dataclass(frozen=True)
class Run:
    """What became of a command: its status, its stdout and stderr in one, wall-clock seconds.

    `console` is what the guest's kernel said.
    """

    status: int
    output: str
    console: str
    seconds: float

    def report(self) -> str:
        """What a person needs to see when it failed."""
        if self.status == LIMITED:
            return f"{self.output}\nthe time limit has passed; the console:\n{self.console}"
        if self.status == DIED:
            return f"{self.output}\nthe guest died; the console:\n{self.console}"
        return self.output


def run(
    boot: Boot,
    command: Sequence[str | Path],
    *,
    environment: Mapping[str, str] | None = None,
    read: Sequence[Path] = (),
    write: Sequence[Path] = (),
    limit: float = 300,
    attempts: int = 2,
) -> Run:
    """Run a command in the checkout's directory; a guest that dies is given another try.

    `write` are directories that the guest may change, at the same path as here, `read` those
    that it needs to see where it has another root. `limit` is of wall-clock seconds, each
    attempt's.
    """
    seen = () if boot.root == Path("/") else (CHECKOUT, *read)
    shares = [*(("ro", path) for path in seen), *(("rw", path) for path in write)]
    words = [str(word) for word in command]
    lines = [f"export {shlex.quote(f'{k}={v}')}\n" for k, v in (environment or {}).items()]
    lines += [f"cd {shlex.quote(str(CHECKOUT))} || exit\n", f"exec {shlex.join(words)}\n"]
    archive = initramfs(boot, "".join(lines), shares)
    for attempt in range(1, attempts + 1):
        done = _attempt(boot, archive, shares, limit)
        if done.status != DIED or attempt == attempts:
            break
    return done


def _attempt(boot: Boot, archive: bytes, shares: Sequence[tuple[str, Path]], limit: float) -> Run:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="probetop-vm-") as name:
        work = Path(name)
        (work / "initramfs").write_bytes(archive)
        for file in ("output", "control", "console"):
            (work / file).touch()
        try:
            subprocess.run(_qemu(boot, work, shares), stdin=-3, stdout=-3, stderr=-2, timeout=limit)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        except FileNotFoundError as error:
            raise Unavailable(
                f"{error.filename} is missing: as root, ./test.sh --vm installs it"
            ) from None
        word, _, status = (work / "control").read_text().strip().partition(" ")
        number = int(status) if word == "status" else LIMITED if late else DIED
        output = (work / "output").read_text(errors="replace").replace("\r\n", "\n")
        console = "\n".join((work / "console").read_text(errors="replace").splitlines()[-40:])
    return Run(number, output, console, time.monotonic() - started)


def _qemu(boot: Boot, work: Path, shares: Sequence[tuple[str, Path]]) -> list[str]:
    arch = boot.kernel.arch
    # The guest ends with us, however we end.
    command = ["setpriv", "--pdeathsig", "KILL", *QEMU[arch].split(), *COMMON.split()]
    command += PMU.split() if boot.kernel.pmu else []
    command += ["-kernel", str(boot.image), "-initrd", str(work / "initramfs")]
    command += ["-append", f"{ARGUMENTS[arch]} {QUIET}"]
    command += ["-serial", f"file:{work / 'console'}"]
    for port in ("output", "control"):
        command += ["-chardev", f"file,id={port},path={work / port}"]
        command += ["-device", f"virtserialport,chardev={port},name={port}"]
    all_shares = [("root", "ro", boot.root), ("modules", "ro", boot.modules)]
    all_shares += [(f"share{i}", mode, path) for i, (mode, path) in enumerate(shares)]
    for tag, mode, path in all_shares:
        share = f"local,id={tag},path={str(path).replace(',', ',,')},multidevs=remap"
        readonly = ",readonly=on" if mode == "ro" else ""
        command += ["-fsdev", f"{share},security_model=passthrough{readonly}"]
        command += ["-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
    return command


def initramfs(boot: Boot, command: str, shares: Sequence[tuple[str, Path]]) -> bytes:
    """The guest's first file system: busybox, modules, `init`, the command and its shares."""
    busybox = boot.busybox.read_bytes()
    if b"/ld-linux" in busybox[:4096]:
        raise Unavailable("busybox is not static: apt-get install busybox-static")
    files = {"init": INIT.read_bytes(), "bin/busybox": busybox, "guest/command": command.encode()}
    lines = [f"share{i} {mode} {path}\n" for i, (mode, path) in enumerate(shares)]
    files["guest/shares"] = "".join(lines).encode()
    for number, (name, module) in enumerate(_modules(boot.modules)):
        files[f"modules/{number:02}-{name}"] = module
    empty = ("proc", "sys", "dev", "guest/lower", "guest/upper", "guest/root")
    return cpio(files, empty)


def _modules(directory: Path) -> Iterator[tuple[str, bytes]]:
    """The modules in NEEDED and what they depend on, in an order in which they load."""
    depends: dict[str, list[str]] = {}
    for line in (directory / "modules.dep").read_text().splitlines():
        path, _, others = line.partition(":")
        depends[path] = [*reversed(others.split()), path]
    by_name = {Path(path).name.partition(".")[0]: path for path in depends}
    wanted = [path for name in NEEDED if name in by_name for path in depends[by_name[name]]]
    for path in dict.fromkeys(wanted):
        data = (directory / path).read_bytes()
        if path.endswith(".xz"):
            data = lzma.decompress(data)
        elif path.endswith(".zst"):
            data = kernels.unzstd(data)
        yield Path(path).name.partition(".")[0] + ".ko", data


def cpio(files: Mapping[str, bytes], empty: Sequence[str] = ()) -> bytes:
    """An archive of executable files and directories that Linux unpacks as an initramfs.

    The format is "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).
    """
    parents = {str(p): None for name in (*files, *empty) for p in reversed(Path(name).parents)}
    directories = [name for name in (*parents, *empty) if name != "."]
    archive = bytearray()
    entries = [(name, 0o040755, b"") for name in directories]
    entries += [(name, 0o100755, data) for name, data in files.items()]
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")]):
        path = name.encode() + b"\0"
        numbers = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
        archive += b"070701" + "".join(f"{n:08x}" for n in numbers).encode() + path
        archive += bytes(-len(archive) % 4) + data
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


def main() -> int:
    """The command line; its output comes when the guest has ended."""
    parser = argparse.ArgumentParser(prog="python -m tests.vm.machine", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("kernel", help=", ".join(kernels.KERNELS))
    parser.add_argument("--write", metavar="DIR", type=Path, action="append", default=[])
    parser.add_argument("--limit", metavar="S", type=float, default=300.0)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    options = parser.parse_args()
    if not options.command:
        parser.error("which command?")
    try:
        (kernel,) = kernels.choose([options.kernel])
        boot = kernels.prepare(kernel)
        write = [path.resolve() for path in options.write]
        done = run(boot, options.command, write=write, limit=options.limit)
    except (Unavailable, ValueError) as error:
        parser.error(str(error))
    sys.stdout.write(done.report())
    print(f"{kernel.name}: {boot.release}, {done.seconds:.1f} s", file=sys.stderr)
    return done.status


if __name__ == "__main__":
    sys.exit(main())
