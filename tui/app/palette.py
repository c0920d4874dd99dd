# SPDX-License-Identifier: Apache-2.0
"""The command palette, with titles as plain text instead of Textual markup.

A remote host chooses the name that appears in a title. Markup in that name could run an action or
raise an error, and Textual passes control characters to the terminal.
"""

from __future__ import annotations

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.markup import escape

from tui.shared.text import safe


class Commands(Provider):
    """Provides the commands of the app's `get_system_commands`."""

    async def discover(self) -> Hits:
        """Yield all commands, by title."""
        commands = self.app.get_system_commands(self.screen)
        for title, help_text, callback, discover in sorted(commands, key=lambda each: each[0]):
            if discover:
                shown = safe(title)
                yield DiscoveryHit(Content(shown), callback, shown, escape(safe(help_text)))

    async def search(self, query: str) -> Hits:
        """Yield the commands that match the typed text, with matching characters highlighted."""
        matcher = self.matcher(query)
        for title, help_text, callback, _ in self.app.get_system_commands(self.screen):
            shown = safe(title)
            score, offsets = matcher.fuzzy_search.match(query, shown)
            if score > 0:
                content = Content(shown)
                for at in offsets:
                    content = content.stylize(matcher.match_style, at, at + 1)
                yield Hit(score, content, callback, shown, escape(safe(help_text)))
