"""Each attack in its small size: honest clients are served, memory and log stay in bounds."""

from pathlib import Path

import pytest

from tests.hostile.catalogue import ATTACKS
from tests.hostile.scene import Attack, play

SEED = 1


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_honest_clients_keep_their_service(attack: Attack, tmp_path: Path) -> None:
    play(attack, tmp_path, is_full=False, seed=SEED).check()
