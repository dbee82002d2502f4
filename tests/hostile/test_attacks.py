"""Each attack in its small size: honest clients are served, memory and log stay in bounds."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final

import pytest

from tests.hostile.catalogue import ATTACKS
from tests.hostile.scene import Attack, Stage

SEED: Final = 1

StageOf = Callable[[Attack], Stage]


@pytest.fixture(scope="module")
def stage_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StageOf]:
    """The stage of an attack: one after another plays on it, and the honest pair stays."""
    stages: dict[str, Stage] = {}
    with ExitStack() as stack:

        def find(attack: Attack) -> Stage:
            if attack.stage not in stages:
                folder = tmp_path_factory.mktemp("stage")
                stages[attack.stage] = stack.enter_context(Stage(attack, folder, is_full=False))
            return stages[attack.stage]

        yield find


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_honest_clients_keep_their_service(attack: Attack, stage_of: StageOf) -> None:
    stage_of(attack).play(attack, seed=SEED).check()
