"""What is stale, why, and what it cost last time: `python -m pipelines.plan [--json]`."""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from pipelines.dvc import dvc_command, dvc_environment, explain_busy
from pipelines.entry import answer
from stages.errors import InputError
from stages.process import NOTES, AtWorkError

REASON_LENGTH = 400
STATE_WORDS = {
    "modified": "has changed",
    "deleted": "is missing",
    "new": "is new",
    "not in cache": "is not in the cache",
}

Graph = dict[str, set[str]]


@dataclass(frozen=True)
class Step:
    """A stage that is to run: why, after which other steps, and the seconds that it took last time (None: unknown)."""

    stage: str
    reasons: list[str]
    after: list[str]
    seconds: float | None


def plan() -> list[Step]:
    """Return the stages that `dvc repro` would look at, in running order: the stale ones and all that follows them.

    Raises:
        InputError: dvc cannot read the project, or another dvc holds its lock.
    """
    status = read_status()
    return plan_from(status, read_graph()) if status else []


def plan_from(status: dict[str, list[Any]], graph: Graph) -> list[Step]:
    """Return the steps for a status and a graph (stage -> stages that it needs, in dvc.yaml's order)."""
    lock = _read_yaml(Path("dvc.lock")).get("stages", {})
    steps: dict[str, Step] = {}
    for stage in running_order(graph):
        after = [name for name in graph if name in graph[stage] and name in steps]
        if stage not in status and not after:
            continue
        reasons = explain(stage, status.get(stage, []), lock.get(stage))
        steps[stage] = Step(stage, reasons + [f"follows {name}" for name in after], after, last_seconds(stage))
    return list(steps.values())


def read_status() -> dict[str, list[Any]]:
    """Return `dvc status --json`: the stages that do not agree with dvc.lock; empty when nothing is stale."""
    status: dict[str, list[Any]] = json.loads(_dvc("status", "--json") or "{}")
    return status


def read_graph() -> Graph:
    """Return each stage's needed stages, in dvc.yaml's order."""
    dot = _dvc("dag", "--dot")
    graph: Graph = {name: set() for name in re.findall(r'^"([^"]+)";$', dot, re.MULTILINE)}
    for needed, stage in re.findall(r'^"([^"]+)" -> "([^"]+)";$', dot, re.MULTILINE):
        graph[stage].add(needed)
    return graph


def running_order(graph: Graph) -> list[str]:
    """Return the stages so that each comes after what it needs, otherwise in the graph's own order."""
    rank = {stage: number for number, stage in enumerate(graph)}
    sorter = TopologicalSorter(graph)
    sorter.prepare()
    order: list[str] = []
    ready: list[str] = []
    while sorter.is_active():
        ready = sorted([*ready, *sorter.get_ready()], key=rank.__getitem__)
        order.append(ready.pop(0))
        sorter.done(order[-1])
    return order


def explain(stage: str, changes: list[Any], locked: dict[str, Any] | None) -> list[str]:
    """Return in words what `dvc status` says about one stage; changed parameters come with old and new value."""
    if changes and locked is None:
        return ["never ran here"]
    reasons = []
    for change in changes:
        if change == "changed command":
            reasons.append("its command has changed")
            continue
        for path, state in change.get("changed deps", {}).items():
            reasons += _explain_dependency(path, state, locked or {})
        reasons += [f"{path} {_state(state)}" for path, state in change.get("changed outs", {}).items()]
    return reasons


def _explain_dependency(path: str, state: str | dict[str, str], locked: dict[str, Any]) -> list[str]:
    if isinstance(state, str):
        return [f"{path} {_state(state)}"]
    before, now = locked.get("params", {}).get(path, {}), _read_yaml(Path(path))
    words = []
    for name in state:
        words += _differences(name, before.get(name), _look_up(now, name)) or [f"{name} {_state(state[name])}"]
    return words


def _state(state: str) -> str:
    return STATE_WORDS.get(state, state)


def _differences(name: str, before: Any, now: Any) -> list[str]:
    """Return `name: old -> new` for each leaf that differs."""
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        return [line for key in keys for line in _differences(f"{name}.{key}", before.get(key), now.get(key))]
    return [] if before == now else [f"{name}: {json.dumps(before)} -> {json.dumps(now)}"]


def _look_up(tree: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    return tree


def last_seconds(stage: str) -> float | None:
    """Return what a stage cost when it last finished here, None where that is not known."""
    try:
        note = json.loads((NOTES / f"{stage}.json").read_text())
    except (OSError, ValueError):
        return None
    return note.get("seconds") if note.get("code") == 0 else None


def describe(steps: list[Step], targets: Sequence[str] = ()) -> str:
    """Return the plan (of the targets) as lines of text, with the cost of the last time where it is known."""
    if not steps:
        return f"nothing is stale of: {', '.join(targets)}" if targets else "nothing is stale"
    known = [step.seconds for step in steps if step.seconds is not None]
    cost = f", {sum(known):.0f} s for {len(known)} of them last time" if known else ""
    lines = [f"{len(steps)} stages to run{cost}:"]
    width = max(len(step.stage) for step in steps)
    for step in steps:
        seconds = f"{step.seconds:7.1f} s" if step.seconds is not None else " " * 9
        lines.append(f"  {step.stage:<{width}} {seconds}  {'; '.join(step.reasons)}")
    return "\n".join(lines)


def _dvc(*arguments: str) -> str:
    done = subprocess.run(dvc_command(*arguments), capture_output=True, text=True, env=dvc_environment())
    if done.returncode:
        if busy := explain_busy(done.stderr):
            raise AtWorkError(busy)
        reason = " ".join((done.stderr or done.stdout).split()).removeprefix("ERROR: ")
        raise InputError(f"dvc {arguments[0]} failed: {reason[:REASON_LENGTH]}")
    return done.stdout


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load(path.read_text(), Loader=loader) or {}


def main() -> int:
    """Print the plan and return 0, or 2 with one line where dvc cannot read the project."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.plan", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the steps as JSON")
    arguments = parser.parse_args()
    return answer("plan", partial(_tell_plan, arguments.json))


def _tell_plan(as_json: bool) -> int:
    steps = plan()
    print(json.dumps([asdict(step) for step in steps], indent=2) if as_json else describe(steps))
    return 0


if __name__ == "__main__":
    sys.exit(main())
