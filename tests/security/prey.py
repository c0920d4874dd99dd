# SPDX-License-Identifier: Apache-2.0
"""What attacks are after: a setuid program that refuses, private files, and a hostile folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Self

SOURCE = """
#include <stdio.h>
#include <unistd.h>
__attribute__((noinline)) int permitted(unsigned uid, int salt)
{
	int sum = salt;
	for (int i = 0; i < 7; i++)
		sum = sum * 1103515245 + 12345 + i;
	if (uid == 0)
		return 1;
	return sum == 0x12345678;
}
int main(int argc, char **argv)
{
	puts(permitted(getuid(), argc) ? "granted" : "refused");
	return 0;
}
"""
SECRET = "/usr/bin/secret-interpreter-4711"


class Prey:
    """`guard` is root's and setuid; `private` is a folder of root's that nobody may search.

    `hostile` is a folder of the user `uid`. `inside` are addresses of the guard's function at which
    no instruction begins, as objdump sees it; `terminal` is one that root reads from.
    """

    def __init__(self, uid: int) -> None:
        self.uid = uid

    def __enter__(self) -> Self:
        self.top = Path(tempfile.mkdtemp(prefix="probetop-prey-", dir="/tmp"))
        self.top.chmod(0o755)
        self.guard = self.top / "guard"
        (self.top / "guard.c").write_text(SOURCE)
        command = ["gcc", "-O1", "-no-pie", "-o", str(self.guard), str(self.top / "guard.c")]
        subprocess.run(command, check=True)
        self.guard.chmod(0o4755)
        self.private = self.top / "private"
        self.private.mkdir(mode=0o700)
        shutil.copy(self.guard, self.private / "exists")
        script = self.private / "script"
        script.write_text(f"#!{SECRET}\n")
        self.hostile = self.top / "hostile"
        self.hostile.mkdir()
        os.chown(self.hostile, self.uid, self.uid)
        shutil.copy(script, self.top / "script")
        (self.top / "script").chmod(0o600)
        self.begin, self.inside = self._addresses()
        assert self.inside
        self.controller, self.terminal = os.openpty()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.controller)
        os.close(self.terminal)
        shutil.rmtree(self.top)

    def _addresses(self) -> tuple[int, list[int]]:
        """Where `permitted` begins, and its addresses at which no instruction does."""
        text = subprocess.run(
            ["objdump", "-d", "--disassemble=permitted", str(self.guard)],
            check=True, capture_output=True, text=True,
        ).stdout  # fmt: skip
        places = [
            int(at, 16) for at in re.findall(r"^\s+([0-9a-f]+):\t(?:[0-9a-f]{2} )+", text, re.M)
        ]
        whole = set(range(places[0], places[-1]))
        return places[0], sorted(whole - set(places))

    def refuses(self) -> bool:
        """Whether the guard still refuses the user."""
        command = [self.guard]
        done = subprocess.run(command, capture_output=True, text=True, user=self.uid, check=False)
        return done.stdout == "refused\n"
