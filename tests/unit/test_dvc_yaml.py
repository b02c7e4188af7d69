"""dvc.yaml: a stage depends on all code that decides its result."""

import pytest
import yaml

from stages.settings import STAGES
from stages.trainer.fingerprint import code_closure
from tests.conftest import ROOT

SELECTED = {"preset": "dcgan", "family": "dcgan"}


def deps_of(name: str) -> list[str]:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][name]
    deps = stage.get("do", stage)["deps"]
    for key, value in SELECTED.items():
        deps = [dep.replace(f"${{item.{key}}}", value) for dep in deps]
    return deps


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_code_that_decides_its_result(name):
    deps = deps_of(name)
    family = [f"stages.networks.{SELECTED['family']}"] if name == "train" else []  # which it imports by name
    used = code_closure([f"stages.{name}.run", *family])
    code = [file for file in used if (ROOT / file).stat().st_size]  # an empty __init__.py decides nothing
    missing = [file for file in code if not any(file == dep or file.startswith(f"{dep}/") for dep in deps)]
    assert missing == []
    absent = [dep for dep in deps if dep.startswith("stages/") and not (ROOT / dep).exists()]
    assert absent == []
