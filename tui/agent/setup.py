# SPDX-License-Identifier: Apache-2.0
"""The data that the agent's start prepares with privileges, for its service."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from probes.core.errors import ProbeError
from probes.host.privileges import User
from tui.agent.options import ServeOptions
from tui.agent.owner_token import OwnerFile
from tui.agent.sd_notify import Notifier
from tui.settings.options import Options

if TYPE_CHECKING:
    import socket
    import ssl

Complain = Callable[[str], None]
"""Prints a line for the user who started the agent."""


@dataclass(slots=True)
class Setup:
    """Prepared with privileges.

    `user` is the agent's later user; `owner` started it: the caller of sudo, if any. `own` is the
    owner's token; `no_token` is the reason why there is none.
    """

    options: Options
    serve: ServeOptions
    probe_options: Mapping[str, Mapping[str, Any]]
    user: User
    notifier: Notifier
    owner: User
    sock: socket.socket | None = None
    context: ssl.SSLContext | None = None
    own: OwnerFile | None = None
    no_token: ProbeError | None = None
    page_files: tuple[int, int] | None = None
