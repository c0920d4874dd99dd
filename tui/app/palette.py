# SPDX-License-Identifier: Apache-2.0
"""The palette: titles of commands as plain text, never as Textual's markup.

A title may name another machine, and that machine chose its name. Markup in it would be a
clickable action or would end the program, and Textual sends control characters on as they are.
"""

from __future__ import annotations

from textual.command import DiscoveryHit, Hit, Hits, Provider
from textual.content import Content
from textual.markup import escape

from tui.shared.text import safe


class Commands(Provider):
    """What `get_system_commands` of the program lists."""

    async def discover(self) -> Hits:
        """All of them, by title."""
        commands = self.app.get_system_commands(self.screen)
        for title, help_text, callback, discover in sorted(commands, key=lambda each: each[0]):
            if discover:
                shown = safe(title)
                yield DiscoveryHit(Content(shown), callback, shown, escape(safe(help_text)))

    async def search(self, query: str) -> Hits:
        """Those that match what was typed, the characters that match highlighted."""
        matcher = self.matcher(query)
        for title, help_text, callback, _ in self.app.get_system_commands(self.screen):
            shown = safe(title)
            score, offsets = matcher.fuzzy_search.match(query, shown)
            if score > 0:
                content = Content(shown)
                for at in offsets:
                    content = content.stylize(matcher.match_style, at, at + 1)
                yield Hit(score, content, callback, shown, escape(safe(help_text)))
