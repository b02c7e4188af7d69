"""Names a training by all that decides its course: settings without the budget, data, policy and code."""

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.storage import sha256_file, sha256_json

ROOT = Path(__file__).resolve().parents[2]
LENGTH = 16
# Starts, stops, checks and writes; what it decides is in the settings, which are hashed themselves.
PLAIN = ("__init__", "errors", "failures", "output", "process", "progress", "ranks", "storage")
PLUMBING = {f"stages/{name}.py" for name in PLAIN}
# A larger budget goes on; how often is saved and what is computed twice to save memory changes nothing.
WITHOUT_EFFECT = ("budget_kimg", "checkpoint_kimg", "checkpointing")


@dataclass(frozen=True)
class Fingerprint:
    """What decides a training, kept beside its state so that a difference can be explained."""

    settings: dict[str, Any]
    dataset: str
    policy: dict[str, Any]
    code: dict[str, str]

    @property
    def digest(self) -> str:
        """The name of the training's folder, 16 hexadecimal digits."""
        return sha256_json(vars(self))[:LENGTH]

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Name what differs from another training's parts, as kept in fingerprint.json."""
        found = [
            f"{k} {other['settings'].get(k)} -> {v}" for k, v in self.settings.items() if other["settings"].get(k) != v
        ]
        if self.dataset != other["dataset"]:
            found.append("data/images")
        if self.policy != other["policy"]:
            found.append("data/augment/policy.json")
        names = sorted(self.code.keys() | other["code"].keys())
        return found + [name for name in names if self.code.get(name) != other["code"].get(name)]


def effective_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return a model's settings without those that do not change its course."""
    return {name: value for name, value in settings.items() if name not in WITHOUT_EFFECT}


def code_closure(entries: list[str]) -> dict[str, str]:
    """Return the sha256 of each first-party file that the entry modules import, directly or through others.

    Imports are read from the source, those inside functions too; names such as `stages.trainer.loop`.
    Plumbing is left out.
    """
    found: dict[str, str] = {}
    waiting = list(entries)
    while waiting:
        path = _module_file(waiting.pop())
        if path is None:
            continue
        name = path.relative_to(ROOT).as_posix()
        if name not in found and name not in PLUMBING and not name.startswith("stages/settings/"):
            found[name] = sha256_file(path)
            waiting += _imported_modules(path)
    return dict(sorted(found.items()))


def _module_file(module: str) -> Path | None:
    base = ROOT.joinpath(*module.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _imported_modules(path: Path) -> list[str]:
    modules = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return [module for module in modules if module.split(".")[0] == "stages"]
