# SPDX-License-Identifier: Apache-2.0
"""The token that `serve` makes for the user who started it: its file, and who finds it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from probes.core.errors import ProbeError
from probes.host.privileges import NOBODY, User
from tests.folders import tmp_path as tmp_path
from tests.paths import ROOT
from tests.unit.agent import eventually
from tui.agent import owner_token

SOMEBODY = 4711
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="other users are made by root")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in the place of /run, that everybody can reach."""
    monkeypatch.setattr(owner_token, "RUN", str(tmp_path))
    for name in ("XDG_RUNTIME_DIR", "RUNTIME_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def me() -> User:
    return User(os.geteuid(), os.getegid(), None)


def create(user: User) -> owner_token.OwnerFile:
    if os.geteuid() != 0:
        os.environ["XDG_RUNTIME_DIR"] = owner_token.RUN
    return owner_token.create("127.0.0.1", 9435, user)


def as_user(uid: int, program: str, *arguments: str) -> str:
    """What a program prints that runs as this user."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        user=uid, group=uid, extra_groups=[], cwd="/",
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


FIND = (
    "import sys\nfrom tui.agent import owner_token\nowner_token.RUN = sys.argv[1]\n"
    "print(owner_token.find(sys.argv[2], 9435))\n"
)


def test_its_user_finds_it_until_the_end(run: Path) -> None:
    made = create(me())
    path = Path(made.path)
    assert path.read_text() == f"Authorization: Bearer {made.secret}\n"
    assert len(made.secret) >= 40
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert owner_token.find("127.0.0.1", 9435) == made.secret
    # Somebody else may listen on an address that only looks alike.
    for host, port in (("::1", 9435), ("127.0.0.2", 9435), ("127.0.0.1", 9436)):
        assert owner_token.find(host, port) is None
    made.close()
    assert not path.exists()
    assert list(path.parent.iterdir()) == []


def test_two_agents_never_have_the_same_token(run: Path) -> None:
    one, two = create(me()), create(me())
    assert one.secret != two.secret
    one.close()
    # The file is that of the second one by now.
    assert owner_token.find("127.0.0.1", 9435) == two.secret
    two.close()
    assert owner_token.find("127.0.0.1", 9435) is None


def test_it_is_gone_also_when_the_agent_is_killed(run: Path) -> None:
    program = (
        "import os, sys, time\nfrom probes.host.privileges import User\n"
        "from tui.agent import owner_token\n"
        "owner_token.RUN = os.environ['XDG_RUNTIME_DIR'] = sys.argv[1]\n"
        "made = owner_token.create('127.0.0.1', 9435, User(os.geteuid(), os.getegid(), None))\n"
        "print(made.path, flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(run)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        path = Path(process.stdout.readline().strip())
        assert path.exists()
        process.kill()
    eventually("the file is gone", lambda: not path.exists())


@as_root
def test_it_belongs_to_the_caller_of_sudo_and_nobody_else_reads_it(run: Path) -> None:
    made = create(User(SOMEBODY, SOMEBODY, None))
    status = Path(made.path).stat()
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (SOMEBODY, 0o600)
    assert as_user(SOMEBODY, FIND, str(run), "127.0.0.1") == made.secret
    other = "import sys\nprint(open(sys.argv[1]).read())"
    with pytest.raises(subprocess.CalledProcessError) as caught:
        as_user(SOMEBODY - 1, other, made.path)
    assert "Permission denied" in caught.value.stderr
    # The process that removes it is that user, and holds no more than it needs.
    lines = Path(f"/proc/{made.keeper}/status").read_text().splitlines()
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert fields["Uid"].split() == [str(SOMEBODY)] * 4
    assert int(fields["CapPrm"], 16) == int(fields["CapBnd"], 16) == 0
    assert len(os.listdir(f"/proc/{made.keeper}/fd")) == 2
    made.close()
    assert not Path(made.path).exists()


@as_root
def test_links_that_its_user_puts_there_are_not_followed(run: Path) -> None:
    """A user whose directory it is tries to have root write elsewhere, or give a file away."""
    user, precious = User(SOMEBODY, SOMEBODY, None), run / "precious"
    precious.write_text("data")
    directory = run / f"probetop-{SOMEBODY}"
    directory.mkdir(0o700)
    os.chown(directory, SOMEBODY, SOMEBODY)
    name = directory / owner_token.file_name("127.0.0.1", 9435)
    for make in (os.symlink, os.link):
        make(precious, name)
        made = create(user)
        assert (precious.read_text(), precious.stat().st_uid) == ("data", 0)
        assert not name.is_symlink()
        assert name.read_text().split()[2] == made.secret
        made.close()
    name.mkdir()
    with pytest.raises(ProbeError, match="cannot create a token for you"):
        create(user)


@as_root
@pytest.mark.parametrize("kind", ["link", "other", "open"])
def test_a_directory_of_others_is_not_used(run: Path, kind: str) -> None:
    directory = run / f"probetop-{SOMEBODY}"
    elsewhere = run / "elsewhere"
    elsewhere.mkdir(0o700)
    if kind == "link":
        directory.symlink_to(elsewhere)
        os.chown(elsewhere, SOMEBODY, SOMEBODY)
    else:
        directory.mkdir()
        directory.chmod(0o700 if kind == "other" else 0o770)
        os.chown(directory, SOMEBODY - 1 if kind == "other" else SOMEBODY, 0)
    with pytest.raises(ProbeError, match="--token-file"):
        create(User(SOMEBODY, SOMEBODY, None))
    assert list(elsewhere.iterdir()) == []
    assert os.lstat(elsewhere).st_uid == (SOMEBODY if kind == "link" else 0)


@as_root
def test_a_file_that_somebody_else_wrote_is_not_believed(run: Path) -> None:
    directory = run / "probetop-0"
    directory.mkdir(0o700)
    name = directory / owner_token.file_name("127.0.0.1", 9435)
    for uid, mode, text in (
        (SOMEBODY, 0o600, "Authorization: Bearer stolen\n"),
        (0, 0o640, "Authorization: Bearer stolen\n"),
        (0, 0o600, "stolen\n"),
        (0, 0o600, "\xff" * 10_000),
    ):
        name.write_text(text)
        name.chmod(mode)
        os.chown(name, uid, 0)
        assert owner_token.find("127.0.0.1", 9435) is None
    name.unlink()
    os.mkfifo(name, 0o600)
    assert owner_token.find("127.0.0.1", 9435) is None


def test_nobody_gets_no_token(run: Path) -> None:
    with pytest.raises(ProbeError, match="the user nobody"):
        create(User(NOBODY, NOBODY, None))
    assert list(run.iterdir()) == []


def test_where_nothing_can_be_written_it_says_so(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner_token, "RUN", str(run / "none"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(run / "none"))
    with pytest.raises(ProbeError, match="No such file") as caught:
        owner_token.create("127.0.0.1", 9435, me())
    assert "--token-file" in caught.value.fix
