# SPDX-License-Identifier: Apache-2.0
"""Nothing that the unprivileged side has reaches another process of its user."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.security import accomplice
from tests.security.attack import UIDS, Attack, as_user
from tests.security.prey import Prey

pytestmark = pytest.mark.kernel
NOBODY = UIDS[0]


@pytest.fixture(scope="module")
def prey() -> Iterator[Prey]:
    with Prey(NOBODY) as made:
        yield made


@pytest.mark.parametrize("uid", UIDS)
def test_the_terminal_stays_with_the_confined_process(uid: int) -> None:
    assert accomplice.takes(uid, confined=True) == ""


@pytest.mark.parametrize("uid", UIDS)
def test_a_process_that_is_not_confined_passes_it_on(uid: int) -> None:
    assert accomplice.takes(uid, confined=False) == "sent"


@pytest.mark.parametrize("uid", UIDS)
@pytest.mark.parametrize("attack", accomplice.ATTACKS, ids=lambda attack: attack.name)
def test_as_the_confined_process(attack: Attack, uid: int, prey: Prey) -> None:
    assert as_user(uid, lambda: attack.run(prey), confined=True) == ""
