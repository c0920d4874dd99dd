# SPDX-License-Identifier: Apache-2.0
"""The command line. Exit status: 0; 1 if something cannot be done; 2 for bad input.

Textual is imported only for a dashboard, and only after privileges were dropped.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn, TextIO

import probes
from probes.core.errors import ProbeError
from probes.host import output
from probes.host.file_maker import Rule
from probes.host.output import complain
from probes.source import Source
from tui.registry import REGISTRY
from tui.settings.options import SETTINGS, Options, resolve
from tui.settings.validators import UsageError, check_path, check_seconds, checked, remedy

COMMANDS = {
    "doctor": "check what this machine allows, and how to fix what it does not",
    "stream": "print one JSON object an interval",
    "snapshot": "measure for some seconds and write one file, .html, .json or .svg",
    "diff": "compare two snapshots or recordings",
    "record": "write a recording that `replay` shows",
    "serve": "serve data and control over HTTP, without a screen",
    "replay": "show a recording; needs no privileges",
    "attach": "show the dashboard of other machines, over ssh or from their agents",
    "demo": "show the recording that came with probetop; needs no privileges",
}
LIVE = ("stream", "snapshot", "record", "serve", None)
"""Commands that read the running kernel, including the command line without a command."""


class _Parser(argparse.ArgumentParser):
    """Reports errors as UsageError, in the same form as all other errors."""

    def error(self, message: str) -> NoReturn:
        first, _, rest = message.partition("invalid choice: ")
        if rest and "COMMAND" in first:
            word = rest.split("'")[1]
            raise UsageError(f"unknown command {word!r}", remedy(word, COMMANDS))
        raise UsageError(message, f"see `{self.prog} --help`")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print help or version; raise OSError if that fails, which argparse ignores."""
        output.write(message, _standard_output())


def build_parser() -> argparse.ArgumentParser:
    """Create the parser; it sets no defaults, so that the configuration file can supply values."""
    parser = _Parser(
        prog="probetop",
        description="A top-like dashboard for what the kernel is doing right now.",
        epilog="Without a command it is the dashboard. `probetop COMMAND --help` says more.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"probetop {probes.__version__}")
    _add_settings(parser, live=True, screen=True)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name, text in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )
        _add_own(sub, name)
        if name not in ("doctor", "diff"):
            attached = name == "attach"
            _add_settings(sub, live=attached or name in LIVE, screen=name not in LIVE)
    return parser


def _add_own(sub: argparse.ArgumentParser, name: str) -> None:
    """Add the options that only this command has."""
    if name in ("doctor", "diff"):
        sub.add_argument("--json", action="store_true", help="as JSON")
    if name == "diff":
        sub.add_argument("a", metavar="A", help="a snapshot (.html, .json) or a recording")
        sub.add_argument("b", metavar="B", help="what to compare with it")
        sub.add_argument("--html", metavar="OUT", help="also write it as a page")
    if name in ("snapshot", "record"):
        sub.add_argument("file", metavar="OUT", help="the new file")
    if name in ("snapshot", "record", "diff"):
        sub.add_argument("--force", action="store_true", help="replace OUT if it is there")
    if name == "replay":
        sub.add_argument("file", metavar="FILE", help="a file that `record` wrote")
    if name == "serve":
        from tui.agent.options import add_arguments

        add_arguments(sub)
    if name == "attach":
        from tui.commands.attach_options import add_arguments as add_attach

        add_attach(sub)
    if name == "stream":
        text = "records for a dashboard elsewhere, commands on standard input"
        sub.add_argument("--frames", action="store_true", help=text)
    if name in ("stream", "snapshot", "record"):
        text = "look at N seconds (default 10)" if name == "snapshot" else "stop after N seconds"
        sub.add_argument("--seconds", metavar="N", help=text)


def _add_settings(parser: argparse.ArgumentParser, live: bool, screen: bool) -> None:
    for setting in SETTINGS:
        if not (live if setting.live else screen):
            continue
        if setting.metavar is None:
            parser.add_argument(
                *setting.flags, dest=setting.name, action="store_true", help=setting.text
            )
        else:
            parser.add_argument(
                *setting.flags,
                dest=setting.name,
                metavar=setting.metavar,
                help=setting.text,
                action="append" if setting.many else "store",
            )
    parser.add_argument("--config", metavar="FILE", help="read settings from this TOML file")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line, by default this process's own, and return its exit status."""
    output.reserve_standard_descriptors()
    try:
        typed = vars(build_parser().parse_args(argv))
        # A caller that passes arguments owns the process's descriptors.
        if argv is None and typed.get("command") in (*LIVE, "doctor"):
            from probes.host import process_start

            process_start.begin(sys.argv[1:])
        return _run(typed)
    except ProbeError as error:
        line = f"{error.why}; {error.fix}" if error.fix else error.why
        complain(line)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        return 130


def _standard_output() -> TextIO:
    """Return standard output; raises UsageError if it is closed."""
    if sys.stdout is None or sys.stdout.closed:
        raise UsageError("standard output: closed", "leave it open, or send it to a file")
    return sys.stdout


def _run(typed: dict[str, Any]) -> int:
    command = typed.get("command")
    if command == "doctor":
        resolve(typed, {}, live=False)
        from probes.doctor.report import main as doctor

        _standard_output()
        return doctor(json=typed.get("json", False))
    if command == "diff":
        return _diff(typed)
    if command == "attach":
        return _attach(typed)
    options = _options(typed, live=command in LIVE)
    # Frames are large and contain no cycles, so a garbage collection costs as much as a poll.
    gc.set_threshold(50_000, 20, 20)
    if command == "stream":
        return _stream(options, typed)
    if command == "record":
        return _record(options, typed)
    if command == "snapshot":
        return _snapshot(options, typed)
    if command == "serve":
        from tui.agent.command import serve

        return serve(options, _probe_options(options), typed, complain)
    if command is None:
        _need_terminal("use `probetop stream` for scripts")
        return _show(_open_live(options, "tui.app.start", files=Rule()), options)
    source = _open_recording(command, typed)
    _need_terminal("run it in a terminal")
    return _show(source, options)


def _options(typed: dict[str, Any], live: bool) -> Options:
    """The validated settings of the command line and the configuration file."""
    from tui.settings import config_file as config

    return resolve(typed, config.load(typed.get("config")), live)


def _need_terminal(fix: str) -> None:
    # Textual draws on standard error, but a redirected standard output does not want a dashboard.
    names = {"standard input": sys.stdin, "standard output": sys.stdout}
    for name, stream in {**names, "standard error": sys.stderr}.items():
        if stream is None or not stream.isatty():
            raise UsageError(f"{name}: not a terminal", fix)


def _show(source: Source, options: Options) -> int:
    """Show the dashboard of a source; return the exit status."""
    from tui.app.start import run_app

    return run_app(source, ascii=options.ascii, history=options.history)


def _open_recording(command: str, typed: dict[str, Any]) -> Source:
    from probes.recording.replay import ReplaySource

    if command == "demo":
        recordings = sorted((Path(__file__).parent / "demo").glob("*.ptrec"))
        if not recordings:
            raise ProbeError("the demo recording is missing", "install probetop again")
        return ReplaySource(recordings[0], loop=True, title="demo")
    path = checked("FILE", typed["file"], check_path)
    try:
        return ReplaySource(path)
    except ProbeError as error:
        raise UsageError(error.why, error.fix) from error


def _open_live(
    options: Options,
    reader: str = "tui.commands.stream_record",
    preload: Callable[[], None] | None = None,
    files: Rule | None = None,
) -> Source:
    """Open the live kernel, and drop all privileges. Raises ProbeError.

    `reader` is the module that reads it; it is imported while the probes load. `preload` is called
    at that time too. `files` are the output files, created while the process is still root.
    """
    from probes.core import kernel

    if not kernel.may_load():
        raise ProbeError(
            "loading BPF programs needs root (CAP_BPF and CAP_PERFMON)",
            "run it through sudo, or see a recorded machine with `probetop demo`",
        )
    from probes.live.start import open_live

    return open_live(
        {entry.name: entry.probe_path for entry in REGISTRY},
        on=options.probes,
        options=_probe_options(options),
        filters=options.filters,
        interval=options.interval,
        run_as=options.run_as,
        cost_always=options.cost_always,
        budget=options.budget,
        draws=reader == "tui.app.start",
        include_self=options.include_self,
        log=options.log,
        files=files,
        preload=lambda: _preload(reader, preload, options.run_as),
        fixed=options.fixed,
    )


def _probe_options(options: Options) -> dict[str, dict[str, Any]]:
    chosen: dict[str, dict[str, Any]] = {}
    if options.latency or options.sample > 1:
        chosen["syscalls"] = {"latency": options.latency, "sample_every": options.sample}
    if options.force_timing:
        chosen["latency"] = {"force": True}
    if options.targets:
        chosen.setdefault("latency", {})["targets"] = options.targets
    counted: dict[str, Any] = {"set": options.event_set, "mode": options.event_mode}
    if options.events:
        counted = {"events": options.events, "mode": options.event_mode}
    if any(counted.values()):
        chosen["pmc"] = {name: value for name, value in counted.items() if value}
    return chosen | options.fixed


def _preload(reader: str, more: Callable[[], None] | None, run_as: str | None) -> None:
    """Import all that draws, because the files may become unreadable (another user's home)."""
    from probes.host import privileges

    import_module(reader)
    if more is not None:
        more()
    if reader == "tui.app.start":
        for entry in REGISTRY:
            entry.pane_class()
    # If the files stay readable, rarely used modules are imported on use.
    places = (__file__, os.__file__, os.path.join(sys.prefix, "lib"))
    user = privileges.service_user(run_as)
    if reader in ("tui.app.start", "tui.commands.snapshot") and not privileges.may_read(
        user, *places
    ):
        import_module("tui.app.preloaded").everything()


def _seconds(options: Options, typed: dict[str, Any]) -> float | None:
    """The validated --seconds, at least one interval; None if it is not given."""
    if "seconds" not in typed:
        return None
    seconds: float = checked("--seconds", typed["seconds"], check_seconds)
    if seconds < options.interval:
        why = f"--seconds {seconds:g}: shorter than the interval of {options.interval:g}"
        raise UsageError(why, "give --seconds more, or -i less")
    return seconds


def _stream(options: Options, typed: dict[str, Any]) -> int:
    from tui.commands.stream_record import stream

    seconds = _seconds(options, typed)
    out = _standard_output()
    if typed.get("frames", False):
        return _far(options, seconds)
    return stream(_open_live(options), out, seconds, complain)


def _far(options: Options, seconds: float | None) -> int:
    from tui.commands.serve_frames import stream_frames

    if seconds is not None:
        raise UsageError("--seconds: does nothing with --frames", "leave it out")
    if sys.stdout.isatty() or sys.stdin is None:
        why = "--frames: is for a program, not for a terminal"
        raise UsageError(why, "see `probetop attach ssh://HOST`")
    source = _open_live(options, "tui.commands.serve_frames")
    return stream_frames(source, sys.stdin.fileno(), sys.stdout.fileno(), complain)


def _record(options: Options, typed: dict[str, Any]) -> int:
    from tui.commands.stream_record import check_new, record

    seconds = _seconds(options, typed)
    path, force = checked("OUT", typed["file"], check_path), typed.get("force", False)
    check_new(path, force)
    source = _open_live(options, files=Rule(path, force))
    return record(source, path, seconds, complain, force=force)


def _snapshot(options: Options, typed: dict[str, Any]) -> int:
    from tui.app.preloaded import for_file
    from tui.commands.snapshot import SECONDS, snapshot
    from tui.commands.stream_record import check_new
    from tui.export.write import ending_of

    seconds = _seconds(options, typed) or max(SECONDS, options.interval)
    path, force = checked("OUT", typed["file"], check_path), typed.get("force", False)
    checked("OUT", path, ending_of)
    check_new(path, force)
    source = _open_live(
        options, "tui.commands.snapshot", partial(for_file, path), Rule(path, force)
    )
    return snapshot(source, path, seconds, complain, force=force)


def _attach(typed: dict[str, Any]) -> int:
    from tui.commands.attach import attach

    # Only live commands validate options against the kernel.
    ours = {s.name: typed[s.name] for s in SETTINGS if not s.live and s.name in typed}
    options = _options({**ours, "config": typed.get("config")}, live=False)
    _need_terminal("run it in a terminal")
    return attach(options, typed, complain)


def _diff(typed: dict[str, Any]) -> int:
    from tui.commands.diff import diff

    resolve(typed, {}, live=False)
    paths = [checked(name.upper(), typed[name], check_path) for name in ("a", "b")]
    out = checked("--html", typed["html"], check_path) if "html" in typed else None
    stdout = _standard_output()
    as_json, force = typed.get("json", False), typed.get("force", False)
    return diff(paths[0], paths[1], stdout, as_json=as_json, html=out, force=force)


if __name__ == "__main__":
    sys.exit(main())
