# SPDX-License-Identifier: Apache-2.0
"""Every attack gains nothing, and probetop works on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.security import with_socket, without_socket
from tests.security.attack import Attack, as_nobody, compromised
from tests.security.prey import Prey

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def prey() -> Iterator[Prey]:
    with Prey() as made:
        yield made


@pytest.fixture(scope="module")
def agent(prey: Prey) -> Iterator[without_socket.Served]:
    with without_socket.served(prey) as made:
        yield made


def named(attack: Attack) -> str:
    return attack.name


@pytest.mark.parametrize("attack", with_socket.ATTACKS, ids=named)
def test_with_the_brokers_socket(attack: Attack, prey: Prey) -> None:
    with compromised(prey) as stolen:
        assert as_nobody(lambda: attack.run(stolen), confined=False) == ""
        assert prey.refuses()
    assert not os.path.exists(f"/proc/{stolen.broker_pid}")


@pytest.mark.parametrize("attack", without_socket.ATTACKS, ids=named)
def test_as_the_confined_process(attack: Attack, prey: Prey) -> None:
    assert as_nobody(lambda: attack.run(prey), confined=True) == ""


@pytest.mark.parametrize("attack", without_socket.AGENT_ATTACKS, ids=named)
def test_with_an_account_on_the_machine(attack: Attack, agent: without_socket.Served) -> None:
    assert as_nobody(lambda: attack.run(agent), confined=False) == ""


def test_attacks_that_work_are_seen(prey: Prey) -> None:
    """The prey is worth something: uid 65534 with a breakpoint of root's gets what it wants."""
    assert prey.refuses()
    assert as_nobody(lambda: str((prey.hostile / "mine").write_text("x")), False) == "1"
    assert as_nobody(lambda: str(os.listdir(prey.private)), False).startswith("PermissionError")
