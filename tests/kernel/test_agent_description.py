# SPDX-License-Identifier: Apache-2.0
"""The description that is served against a running agent: schemathesis asks all it can think of."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.kernel.serving import Agent

pytestmark = pytest.mark.kernel
TOKEN = "control-control-control"
CONFIG = """
[checks.positive_data_acceptance]
# What fits the schema may name a process, a function or a run that is not there.
expected-statuses = ["2xx", 404, 422, 429]

[checks.use_after_free]
# DELETE ends a run that goes on (200), whose result is kept; one more forgets it (204).
enabled = false
"""


def test_the_agent_is_what_its_description_says(tmp_path: Path) -> None:
    tokens, config = tmp_path / "tokens", tmp_path / "schemathesis.toml"
    tokens.write_text(f"control {TOKEN}\n")
    tokens.chmod(0o600)
    config.write_text(CONFIG)
    with Agent("--token-file", str(tokens), "--linger", "5") as agent:
        agent.headers = {"Authorization": f"Bearer {TOKEN}"}
        # Without an endless answer, and one whose form the scraper's own checks judge. DELETE of a
        # run that goes on ends it, and its result can be fetched until it is deleted again.
        options = (
            f"--config-file {config} run {agent.where}/openapi.json --checks all --no-color "
            "--exclude-path /v1/frames --exclude-path /metrics --exclude-checks use_after_free "
            "--phases coverage,fuzzing,stateful "
            "--max-examples 15 --seed 1 --generation-deterministic --request-timeout 60"
        )
        header = f"Authorization: Bearer {TOKEN}"
        done = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", *options.split(), "--header", header],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=540,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
        # All kinds of wishes later it is well, and has complained of nothing.
        assert agent.get("/healthz") == {"ok": True}
        assert agent.end() == 0
    assert len(agent.said) == 1, agent.said
