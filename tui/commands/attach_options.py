# SPDX-License-Identifier: Apache-2.0
"""The options that only `attach` has."""

from __future__ import annotations

import argparse

TARGET = "ssh://[user@]host[:port], http[s]://host[:port] or unix:/PATH"
FLAGS = {
    "--token-file": ("FILE", "the token of the agents, in a file that only you may read"),
    "--ca-file": ("FILE", "whom to trust for https, in PEM format"),
    "--remote-command": ("CMD", "what starts probetop there, e.g. 'sudo -n /opt/probetop/run.sh'"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add them to the command's parser."""
    parser.add_argument("targets", metavar="TARGET", nargs="+", help=TARGET)
    for flag, (metavar, text) in FLAGS.items():
        parser.add_argument(flag, metavar=metavar, help=text)
