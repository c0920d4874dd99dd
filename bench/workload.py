# SPDX-License-Identifier: Apache-2.0
"""A small shop on one machine: something to look at, for the demo and for screenshots.

    sudo python bench/workload.py [--seconds N] [--slice NAME]

A web server with clients, a data base that syncs, builds (every third one breaks), and a shell
that runs programs all the time, some of which are missing. It ends by itself, leaves nothing
behind, and, as root with --slice, runs in control groups of its own.
"""

from __future__ import annotations

import argparse
import ctypes
import http.client
import http.server
import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PORT = 8099
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15

BUILD = r"""
n=0
while :; do
    n=$((n + 1))
    rm -f *.o shop
    for part in cart stock mail pay; do
        printf '#include <stdio.h>\nint %s(int x) { return printf("%%d", x); }\n' $part >$part.c
        [ $((n % 3)) = 0 ] && [ $part = pay ] && echo 'int broken(' >>$part.c
    done
    printf 'shop: cart.o stock.o mail.o\n\tgcc -shared -o shop $^\n%%.o: %%.c\n\t%s\n' \
        'gcc -O2 -fPIC -Wall -c -o $@ $<' >Makefile
    make -j2 shop >/dev/null 2>&1
    [ $((n % 3)) = 0 ] && make pay.o >/dev/null 2>&1
    sleep 3
done
"""

CRON = r"""
n=0
while :; do
    n=$((n + 1))
    date +%s >>cron.log
    cat /proc/stat /proc/meminfo | sort -k2 -n | gzip -c >stat.gz
    awk '{ sum += $1 } END { print sum }' cron.log >sum
    curl -s -o /dev/null http://127.0.0.1:8099/item/$n
    [ $((n % 4)) = 0 ] && curl -s -m 1 http://127.0.0.1:1/hook
    [ $((n % 5)) = 0 ] && ./deploy-hook --release "v1.$n" 2>/dev/null
    [ $((n % 7)) = 0 ] && timeout -s KILL 0.2 sleep 5 2>/dev/null
    [ $((n % 9)) = 0 ] && sh ./rotate.sh --keep 7 cron.log
    ls /var/spool/shop >/dev/null 2>&1
    sleep 0.9
done
"""


def web() -> None:
    """Serves items; an unknown one is a file that is not there."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1

        def log_message(self, *_: object) -> None:
            pass

    http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()


def client() -> None:
    """Asks for items, in waves of fifteen seconds."""
    rng = random.Random(os.getpid())
    link: http.client.HTTPConnection | None = None
    while True:
        try:
            link = link or http.client.HTTPConnection("127.0.0.1", PORT, timeout=2)
            link.request("GET", f"/item/{rng.randrange(60)}")
            link.getresponse().read()
        except (OSError, http.client.HTTPException):
            link = None
            time.sleep(0.2)
        wave = abs(time.time() % 15 - 7.5) / 7.5
        time.sleep(0.0005 + 0.01 * wave * rng.random())


def database() -> None:
    """Books orders, each in a transaction that is synced."""
    db = sqlite3.connect("orders.db")
    db.execute("create table orders (id integer primary key, item int, at real)")
    while True:
        with db:
            db.execute("insert into orders (item, at) values (?, ?)", (1, time.time()))
        db.execute("select count(*), avg(item) from orders").fetchone()
        time.sleep(0.05)


def queue() -> None:
    """Waits for work that never comes, by asking too often."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    while True:
        for _ in range(40):
            with suppress(BlockingIOError):
                ours.recv(1)
        with suppress(OSError):
            os.stat("/run/shop/queue.lock")
        with socket.socket() as probe, suppress(OSError):
            probe.connect(("127.0.0.1", 1))
        theirs.send(b"x")
        time.sleep(0.02)


def shell(script: str) -> Callable[[], None]:
    """A role that is a shell script."""
    return lambda: os.execvp("sh", ["sh", "-c", script])


ROLES: dict[str, tuple[str, Callable[[], None]]] = {
    "shop-web": ("web.service", web),
    "shop-client": ("web.service", client),
    "shop-orders": ("db.service", database),
    "shop-queue": ("db.service", queue),
    "build": ("build.service", shell(BUILD)),
    "cron": ("cron.service", shell(CRON)),
}


def enter(group: Path | None) -> Callable[[], None]:
    """What a child does first: join its control group, and die with its parent."""
    libc = ctypes.CDLL(None)

    def run() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if group is not None:
            (group / "cgroup.procs").write_text("0")

    return run


def start(home: Path, top: Path | None) -> list[subprocess.Popen[bytes]]:
    """All roles, each a session of its own."""
    children = []
    for name, (service, _) in ROLES.items():
        group = top / service if top else None
        if group is not None:
            group.mkdir(exist_ok=True)
        place = home / service
        place.mkdir(exist_ok=True)
        command = [sys.executable, "-I", str(home / "shop.py"), "--role", name]
        children.append(
            subprocess.Popen(command, cwd=place, start_new_session=True, preexec_fn=enter(group))
        )
    return children


def prepare(home: Path) -> None:
    """The files that the roles work with."""
    shutil.copy(__file__, home / "shop.py")
    items = home / "web.service" / "item"
    items.mkdir(parents=True)
    for number in range(50):
        (items / str(number)).write_text("an item\n" * 20 * (number + 1))
    cron = home / "cron.service"
    cron.mkdir()
    (cron / "rotate.sh").write_text("tail -n 100 cron.log >c && mv c cron.log && exit 3\n")


def end(children: list[subprocess.Popen[bytes]], top: Path | None) -> None:
    """Stops everything that was started, by its session or its control group."""
    if top is not None:
        (top / "cgroup.kill").write_text("1")
    for child in children:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    if top is not None:
        for group in (*top.iterdir(), top):
            for _ in range(50):
                with suppress(OSError):
                    if group.is_dir():
                        group.rmdir()
                    break
                time.sleep(0.02)


def main() -> int:
    """Runs the shop for a while."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=float, default=75)
    parser.add_argument("--slice", help="run in this new control group (needs root)")
    parser.add_argument("--role", choices=ROLES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.role:
        # Python's own name would stand beside every number.
        ctypes.CDLL(None).prctl(PR_SET_NAME, args.role.encode())
        ROLES[args.role][1]()
        return 0
    top = None
    if args.slice:
        sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
        from probes.core.kernel import cgroup2

        mount = cgroup2()
        if mount is None:
            parser.error("no cgroup2 hierarchy is mounted")
        top = mount / args.slice
        top.mkdir()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="shop-") as name:
        prepare(Path(name))
        children = start(Path(name), top)
        try:
            time.sleep(args.seconds)
        finally:
            end(children, top)
    return 0


if __name__ == "__main__":
    sys.exit(main())
