# SPDX-License-Identifier: Apache-2.0
"""The configuration file: TOML, its keys are the long options.

interval = 2
probes = ["syscalls"]
ascii = true
"""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Any

from probes.core.errors import ProbeError
from probes.host.files import printable, read_regular
from tui.settings.options import SETTINGS
from tui.settings.validators import UsageError, remedy, shown

LARGEST = 1 << 20
"""Most bytes of a configuration file; a larger file is something else."""
KINDS = {str: "a string", int: "a number", bool: "true or false", list: "a list of strings"}


def default_path() -> Path:
    """The configuration file's path in the calling user's home, also under sudo."""
    base = os.environ.get("XDG_CONFIG_HOME", "")
    if os.path.isabs(base):
        return Path(base, "probetop", "config.toml")
    return Path(_home(), ".config", "probetop", "config.toml")


def _home() -> str:
    uid = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and uid.isascii() and uid.isdigit():
        try:
            return pwd.getpwuid(int(uid)).pw_dir
        except (KeyError, OverflowError):
            pass
    return os.path.expanduser("~")


def load(given: str | None) -> dict[str, tuple[str, Any]]:
    """Return each setting's place in the file, for messages, and its unchecked value.

    `given` is the path that the user named; only the default file may be missing. Raises UsageError
    if the file cannot be read, is not TOML, or has unknown keys or values of a wrong type.
    """
    path = Path(given) if given is not None else default_path()
    name = printable(path)
    try:
        data = _read(path)
    except FileNotFoundError:
        if given is None:
            return {}
        raise UsageError(f"{name}: no such file", "check the path given to --config") from None
    except ProbeError as error:
        raise UsageError(error.why, error.fix) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(f"{name}: cannot be read: {reason}", "mend or remove it") from error
    return {key: (f"{name}: {key}", _typed(name, key, value)) for key, value in data.items()}


def _read(path: Path) -> dict[str, Any]:
    """The file's tables; raises OSError, ValueError (including TOML's errors) or ProbeError."""
    data = read_regular(path, LARGEST, pipe=True)
    # The import takes 5 ms, and most users have no such file.
    import tomllib

    try:
        return tomllib.loads(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _typed(name: str, key: str, value: Any) -> Any:
    """Return the value if its key is known and takes the value's type."""
    setting = next((s for s in SETTINGS if s.name == key), None)
    if setting is None:
        known = remedy(key, (s.name for s in SETTINGS))
        raise UsageError(f"{name}: unknown key {shown(key)}", known)
    if type(value) not in setting.kinds:
        wanted = " or ".join(dict.fromkeys(KINDS[k] for k in setting.kinds if k in KINDS))
        why = f"{name}: {key} {shown(value)}: must be {wanted}"
        raise UsageError(why, f"write {key} = {_example(key)}")
    return value


def _example(key: str) -> str:
    examples = {"interval": "1.0", "pid": "123", "latency": "true", "ascii": "true"}
    examples |= {
        "function": '["uprobe:libc:malloc"]',
        "event": '["cycles", "instructions"]',
        "event-set": '"cache"',
        "user-only": "true",
        "no-args": "true",
        "force-timing": "true",
        "kernel-only": "true",
        "probes": '["syscalls"]',
        "cost": '"always"',
        "cgroup": '"/system.slice"',
    }
    return examples.get(key, '"name"')
