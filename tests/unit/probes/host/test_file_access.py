# SPDX-License-Identifier: Apache-2.0
"""Files are looked up with the rights of the person who asks."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from probes.core import kernel
from probes.core.errors import ProbeError
from probes.host import file_access, lookup, mapped_files
from probes.host.file_access import Asker, for_clients, rights, set_asker
from probes.host.open_file import OpenFile, open_file
from probes.host.privileges import User
from probes.symbols.binaries import find_binary, mappings, which
from probes.symbols.search import Catalog
from probes.symbols.target_spec import trusting

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to act as somebody else")
STRANGER = User(12345, 12345, None)


@pytest.fixture(autouse=True)
def policy(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever a test sets, the next one starts with this process's own rights."""
    monkeypatch.setattr(mapped_files, "REMEMBERED_SECONDS", 0.0)
    yield
    set_asker(Asker())


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may search, unlike pytest's own above it."""
    directory = Path("/tmp") / f"probetop-rights-{os.getpid()}"
    directory.mkdir(mode=0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def refusal(path: object) -> str:
    with pytest.raises(ProbeError) as caught:
        open_file(str(path))
    return str(caught.value).replace(str(path), "PATH")


@root
def test_a_private_file_and_a_missing_one_get_the_same_answer(place: Path) -> None:
    private = place / "private"
    private.mkdir(mode=0o700)
    (private / "there").write_text("#!/opt/secret/interpreter\n")
    (private / "there").chmod(0o755)
    (private / "folder").mkdir()
    set_asker(Asker(STRANGER))
    answers = {refusal(private / name) for name in ("there", "missing", "folder", "there/x")}
    assert len(answers) == 1
    assert "secret" not in answers.pop()
    assert "there is no file" in refusal(place / "missing")


@root
def test_a_script_that_may_not_be_read_is_not_quoted(place: Path) -> None:
    script = place / "script"
    script.write_text("#!/opt/secret/interpreter\n")
    script.chmod(0o711)
    set_asker(for_clients())
    assert "cannot be read as user nobody" in refusal(script)
    assert "secret" not in refusal(script)


@root
def test_what_everybody_can_read_is_opened(place: Path) -> None:
    (place / "public").write_text("x")
    set_asker(for_clients())
    assert open_file(str(place / "public")).read(9, 0) == b"x"


@root
def test_group_membership_is_that_of_the_person_who_asks(place: Path) -> None:
    file = place / "group"
    file.write_text("x")
    os.chown(file, 0, 4321)
    file.chmod(0o640)
    set_asker(Asker(STRANGER))
    assert "cannot be read" in refusal(file)
    set_asker(Asker(User(12345, 4321, None)))
    assert open_file(str(file)).read(1, 0) == b"x"
    os.chown(file, 0, 0)
    assert "cannot be read" in refusal(file)


@root
def test_a_private_program_may_be_traced_while_it_runs(place: Path) -> None:
    private = place / "private"
    private.mkdir(mode=0o700)
    program = private / "sleeper"
    shutil.copy("/bin/sleep", program)
    (private / "link").symlink_to("sleeper")
    set_asker(for_clients())
    assert "no process executes it" in refusal(program)
    with subprocess.Popen([str(program), "60"]) as process:
        try:
            assert open_file(str(program)).read(4, 0) == b"\x7fELF"
            # Who may not search the directory cannot know what its links lead to.
            assert "no process executes it" in refusal(private / "link")
            assert open_file(f"/proc/{process.pid}/exe").read(4, 0) == b"\x7fELF"
            set_asker(Asker(STRANGER, mapped=False))
            assert "cannot be read" in refusal(program)
            assert "cannot be read" in refusal(f"/proc/{process.pid}/exe")
        finally:
            process.kill()
    set_asker(for_clients())
    assert "no process executes it" in refusal(program)


@root
def test_rights_come_back_whatever_happens_inside() -> None:
    set_asker(Asker(STRANGER))
    before = os.getresuid(), os.getresgid(), os.getgroups(), kernel.capabilities()
    with rights():
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (12345, 12345, [12345])
        assert os.getuid() == 0, "the person who asks could signal this process"
        assert kernel.capabilities() == frozenset()
        with rights():
            assert os.geteuid() == 12345
    with pytest.raises(ZeroDivisionError), rights():
        raise ZeroDivisionError
    assert (os.getresuid(), os.getresgid(), os.getgroups(), kernel.capabilities()) == before


def in_a_service(work: Callable[[], str]) -> str:
    """What `work` says in a process of user 4321 that can read every file, and cannot change."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        libc.prctl(8, 1)  # PR_SET_KEEPCAPS
        os.setgroups([])
        os.setresgid(4321, 4321, 4321)
        os.setresuid(4321, 4321, 4321)
        file_access._set_capabilities([1 << 2, 1 << 2, 0, 0, 0, 0])  # CAP_DAC_READ_SEARCH
        try:
            said = work()
        except BaseException as error:
            said = repr(error)
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(pid, 0)
    return said


@root
def test_a_service_that_cannot_change_its_user_gives_up_its_capabilities(place: Path) -> None:
    (place / "secret").write_text("x")
    (place / "secret").chmod(0o600)
    (place / "public").write_text("y")

    def work() -> str:
        assert open_file(str(place / "secret")).read(1, 0) == b"x"
        set_asker(for_clients())
        assert open_file(str(place / "public")).read(1, 0) == b"y"
        said = refusal(place / "secret")
        return said + "; " + ",".join(kernel.capabilities())

    said = in_a_service(work)
    assert "PATH cannot be read" in said.replace("'", "")
    assert said.endswith("; CAP_DAC_READ_SEARCH")


@root
def test_a_child_that_looked_files_up_still_dies_with_its_parent() -> None:
    """A change of the user makes the kernel forget the signal."""
    libc = ctypes.CDLL(None)
    libc.prctl(1, signal.SIGUSR1)
    try:
        set_asker(Asker(STRANGER))
        with rights():
            pass
        number = ctypes.c_int()
        libc.prctl(2, ctypes.byref(number))
        assert number.value == signal.SIGUSR1
    finally:
        libc.prctl(1, 0)


@root
def test_targets_of_the_start_are_trusted_and_no_others(place: Path) -> None:
    secret = place / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    options = {"latency": {"targets": [f"u:{secret}:main"]}}
    set_asker(trusting(for_clients(), options))
    with file_access.target(f"uprobe:{secret}:main", 5.0):
        assert open_file(str(secret)).read(1, 0) == b"x"
        assert file_access.offsets_allowed()
    with file_access.target(f"uprobe:{secret}:mainly", 5.0):
        assert "cannot be read" in refusal(secret)
        assert not file_access.offsets_allowed()
    assert "cannot be read" in refusal(secret)


@root
def test_a_search_lists_what_the_person_who_asks_could(place: Path) -> None:
    private = place / "private"
    private.mkdir(mode=0o700)
    (private / "tool").touch(0o755)
    (place / "readable").mkdir()
    (place / "readable" / "tool").touch(0o755)
    set_asker(for_clients())
    catalog = Catalog()
    assert catalog.search(f"{private}/") == []
    assert catalog.search(f"{private}/tool:main") == []
    assert catalog.search("/root/") == []
    assert [e.spec for e in catalog.search(f"{place}/readable/")] == [f"{place}/readable/tool:"]
    assert {e.spec for e in catalog.search(f"{place}/")} == {
        f"{place}/private/",
        f"{place}/readable/",
    }


@root
def test_programs_of_path_are_looked_up_for_the_person_who_asks(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = place / "tools"
    tools.mkdir(mode=0o700)
    (tools / "mytool").touch(0o755)
    monkeypatch.setenv("PATH", str(tools))
    assert find_binary("mytool") == str(tools / "mytool")
    set_asker(Asker(STRANGER))
    with rights():
        assert which("mytool") is None
    with pytest.raises(ProbeError, match="there is no program or library called 'mytool'"):
        find_binary("mytool")


IN_A_ROOT = """
import os, sys, time
os.chroot(sys.argv[1]); os.chdir("/")
print("ready", flush=True)
time.sleep(60)
"""


@root
def test_a_path_of_another_root_stays_in_that_root(place: Path) -> None:
    jail = place / "jail"
    (jail / "etc").mkdir(parents=True)
    (jail / "etc" / "wanted").write_text("theirs")
    (jail / "absolute").symlink_to("/etc/wanted")
    (jail / "upwards").symlink_to("../../../../../../etc/wanted")
    (jail / "magic").symlink_to("/proc/self/root/etc/passwd")
    with subprocess.Popen(
        ["/usr/bin/python3", "-c", IN_A_ROOT, str(jail)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            below = f"/proc/{process.pid}/root"
            for name in ("absolute", "upwards", "etc/wanted"):
                assert open_file(f"{below}/{name}").read(99, 0) == b"theirs"
            assert "no file" in refusal(f"{below}/magic")
            assert "no file" in refusal(f"{below}/etc/passwd")
            python = next(m for m in mappings(process.pid) if "python" in m.name)
            assert python.path == below + python.name
            set_asker(for_clients())
            assert "no process executes it" in refusal(f"{below}/absolute")
            set_asker(Asker())
            # Its files are for the users of that root, even for a target that is trusted.
            options = {"latency": {"targets": [f"uprobe:{below}/etc/wanted:f"]}}
            set_asker(trusting(for_clients(), options))
            with file_access.target(f"uprobe:{below}/etc/wanted:f", 5.0):
                assert "no process executes it" in refusal(f"{below}/etc/wanted")
                assert refusal(f"{below}/etc/missing") == refusal(f"{below}/etc/wanted")
            assert refusal("/proc/4194304/root/etc/wanted") == refusal(f"{below}/etc/wanted")
        finally:
            process.kill()


def test_links_of_proc_do_not_lead_anywhere(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    with open(tmp_path / "x") as file:
        assert "a link of /proc" in refusal(f"/proc/self/fd/{file.fileno()}")
    assert "a link of /proc" in refusal(f"/proc/self/root{tmp_path}/x")
    assert "a link of /proc" in refusal("/proc/self/cwd/x")


@pytest.mark.parametrize("pid", ["../tmp/x", "1", 0, -1, 1 << 23, True, 1.0, None, [1]])
def test_what_is_no_process_id(pid: object) -> None:
    with pytest.raises(ProbeError, match="is no process id"):
        file_access.checked_pid(pid)
    if pid is not None:
        with pytest.raises(ProbeError, match="is no process id"):
            find_binary("libc", pid)  # type: ignore[arg-type]
    with pytest.raises(ProbeError, match="is no process id"):
        mappings(pid)  # type: ignore[arg-type]


def test_a_file_that_was_written_to_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("before")
    file = open_file(str(path))
    file.check()
    path.write_text("behind")
    os.utime(path, ns=(file.stat.st_atime_ns, file.stat.st_mtime_ns))
    with pytest.raises(ProbeError, match="was changed while it was read"):
        file.check()


def test_descriptors_are_closed_with_the_last_reference(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("x")
    before = set(os.listdir("/proc/self/fd"))
    kept: list[OpenFile] = [open_file(str(tmp_path / "x")) for _ in range(10)]
    assert len(set(os.listdir("/proc/self/fd")) - before) == 10
    kept.clear()
    assert set(os.listdir("/proc/self/fd")) == before


def test_processes_of_all_users_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read = mapped_files._processes()
    assert (os.geteuid(), os.getpid()) in read
    monkeypatch.setattr(lookup, "in_our_user_namespace", lambda pid: pid != os.getpid())
    assert mapped_files._processes()[-1] == (os.geteuid(), os.getpid())


def test_a_file_is_the_same_whether_its_file_system_is_asked_or_not(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_text("x")
    known = path.stat().st_dev, path.stat().st_ino
    with open(path) as file:
        assert lookup.identity(file.fileno()) == known
    assert lookup.identity(lookup.HERE, str(path)) == known
    with pytest.raises(FileNotFoundError):
        lookup.identity(lookup.HERE, str(tmp_path / "missing"))
