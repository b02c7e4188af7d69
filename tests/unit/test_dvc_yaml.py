"""dvc.yaml: a stage depends on all code that decides its result."""

import importlib

import pytest
import yaml

from stages.settings import KINDS, STAGES
from stages.trainer.fingerprint import code_closure
from stages.trainer.session import LEARNERS, SCORING
from tests.conftest import ROOT

PER_MODEL = ("train", "evaluate", "export", "certify", "benchmark")
CASES = [(name, "dcgan") for name in STAGES] + [(name, family) for family in KINDS for name in PER_MODEL]


def deps_of(name: str, family: str) -> list[str]:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][name]
    selected = {"preset": "dcgan", "family": family, "data": "images"}
    deps = stage.get("do", stage)["deps"]
    for key, value in selected.items():
        deps = [dep.replace(f"${{item.{key}}}", value) for dep in deps]
    return deps


def imported_by_name(name: str, family: str) -> list[str]:
    """Return the modules that a stage finds by the family's name, which no import statement shows."""
    if name in ("train", "autoencoder"):
        family = family if name == "train" else "autoencoder"
        return [LEARNERS[family], *importlib.import_module(LEARNERS[family]).code_of(family), SCORING]
    return [f"stages.networks.{family}", f"stages.generators.{family}"] if name in PER_MODEL else []


@pytest.mark.parametrize(("name", "family"), dict.fromkeys(CASES))
def test_a_stage_depends_on_all_code_that_decides_its_result(name, family):
    deps = deps_of(name, family)
    used = code_closure([f"stages.{name}.run", *imported_by_name(name, family)])
    code = [file for file in used if (ROOT / file).stat().st_size]  # an empty __init__.py decides nothing
    missing = [file for file in code if not any(file == dep or file.startswith(f"{dep}/") for dep in deps)]
    assert missing == []
    absent = [dep for dep in deps if dep.startswith("stages/") and not (ROOT / dep).exists()]
    assert absent == []
