# SPDX-License-Identifier: Apache-2.0
"""Every attack gains nothing, and probetop works on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from probes.symbols import tracepoints
from tests.security import attack as attacker
from tests.security import with_socket, without_socket
from tests.security.attack import UIDS, Attack, as_user, compromised
from tests.security.prey import Prey

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module", params=UIDS, ids=lambda uid: f"uid-{uid}")
def prey(request: pytest.FixtureRequest) -> Iterator[Prey]:
    with Prey(request.param) as made:
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
        assert as_user(prey.uid, lambda: attack.run(stolen), confined=False) == ""
        assert prey.refuses()
    assert not os.path.exists(f"/proc/{stolen.broker_pid}")


@pytest.mark.parametrize("attack", without_socket.ATTACKS, ids=named)
def test_as_the_confined_process(attack: Attack, prey: Prey) -> None:
    assert as_user(prey.uid, lambda: attack.run(prey), confined=True) == ""


@pytest.mark.parametrize("attack", without_socket.AGENT_ATTACKS, ids=named)
def test_with_an_account_on_the_machine(attack: Attack, agent: without_socket.Served) -> None:
    assert as_user(agent.prey.uid, lambda: attack.run(agent), confined=False) == ""


def test_an_address_that_looks_like_a_number_is_dropped(
    prey: Prey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody can tell by the text of an event all fields that hold addresses of the kernel."""
    monkeypatch.setattr(tracepoints, "_may_be_address", lambda *_: False)
    with compromised(prey) as stolen:
        assert with_socket.values_of_call_sites(stolen) == "nothing of calls"


def test_attacks_that_work_are_seen(prey: Prey, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prey is worth something, and what programs are called with can be had otherwise."""
    assert prey.refuses()
    uid = prey.uid
    assert as_user(uid, lambda: str((prey.hostile / "mine").write_text("x")), False) == "1"
    assert as_user(uid, lambda: str(os.listdir(prey.private)), False).startswith("PermissionError")
    monkeypatch.setattr(attacker, "HIDDEN", {})
    with compromised(prey) as stolen:
        said = as_user(uid, lambda: with_socket.arguments_although_hidden(stolen), confined=False)
        assert with_socket.ARGUMENT in said
