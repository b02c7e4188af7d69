"""Crashes at points spread over a whole training, and the drill itself: what is broken, it finds."""

import re
import subprocess
import sys

import pytest

from tests.drill.points import Crash, choose_crashes

SECONDS = 300
# A training whose states are not whole: the drill must find out.
DEFECTS = {
    "an average that is not put back": """
from stages.trainer.adversarial.adversaries import Adversaries
restore = Adversaries.restore
def forgetful(self, state):
    average = {name: tensor.clone() for name, tensor in self.average.state_dict().items()}
    restore(self, state)
    self.average.load_state_dict(average)
Adversaries.restore = forgetful
""",
    "an older state than the newest": """
from stages.trainer.state import StateFolder
counts = StateFolder.seen_counts
StateFolder.load_newest = lambda self, at_most: self._load(counts(self)[0]) if counts(self) else None
""",
    "a state that is written in its place and not looked at": """
import contextlib
from stages.trainer import state
@contextlib.contextmanager
def part(folder):
    folder.mkdir(exist_ok=True)
    yield folder
state.whole_folder = part
state.StateFolder.problem = lambda self, seen: ""
""",
}


def points(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tests.drill.points", *arguments]


def test_crashes_spread_over_a_training_lose_nothing_and_change_nothing():
    done = subprocess.run(points("--count", "20"), capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^20 trainings, 20 crashes, 0 lost, 0 different,", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_found(defect: str):
    script = f"import sys\n{DEFECTS[defect]}\nfrom tests.drill.points import main\nsys.argv[1:] = ['--count', '14']\n"
    line = [sys.executable, "-c", script + "sys.exit(main())"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1, done.stdout + done.stderr
    assert not re.search(r"0 lost, 0 different,", done.stdout)


def test_every_point_is_chosen_before_any_is_chosen_twice():
    names = ["_discriminator_step", "fsync a", "os.rename b"]
    assert choose_crashes(names, 4, 0) == [(Crash(1),), (Crash(2),), (Crash(3),), (Crash(2, True),)]
    more = choose_crashes(names, 10, 0)
    assert all(len(crashes) == 2 for crashes in more[4:])
    assert more == choose_crashes(names, 10, 0) != choose_crashes(names, 10, 1)
    assert choose_crashes(names, 2, 0) == [(Crash(1),), (Crash(3),)]
