"""What a front door is told of a stage, whatever the stage could still say."""

from pathlib import Path

import pytest

from pipelines.execution import Outcome, _outcome

SAID = "ERROR: failed to reproduce 'train@m': failed to run: exec python -m stages.train m, exited with {}"


@pytest.mark.parametrize(
    ("code", "said", "note", "expected"),
    [
        (0, "", {}, (0, "finished", False)),
        (143, "", {}, (143, "stopped", True)),
        (
            255,
            SAID.format(4),
            {"code": 4, "reason": "the disk is full", "retryable": False},
            (4, "the disk is full", False),
        ),
        (255, SAID.format(4), {}, (4, "its lines above say why", False)),
        (255, SAID.format(2), {}, (2, "its lines above say why", False)),
        (255, SAID.format(-9), {}, (4, "was killed (SIGKILL); out of memory?", True)),
        (137, "", {}, (4, "was killed (SIGKILL); out of memory?", True)),
        (255, "", {}, (1, "dvc ended with 255; the lines above say why", False)),
        (255, "ERROR: [Errno 28] No space left on device", {}, (4, "the disk is full: ", False)),
    ],
)
def test_code_and_reason_survive_dvc(tmp_path: Path, code: int, said: str, note: dict, expected: tuple) -> None:
    errors = tmp_path / "train@m.error"
    if said:
        errors.write_text(said)
    outcome = _outcome("train@m", code, note, errors, 1.0)
    assert isinstance(outcome, Outcome)
    assert (outcome.code, outcome.retryable) == (expected[0], expected[2])
    assert outcome.reason.startswith(expected[1])
