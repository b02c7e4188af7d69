"""Two processes that train one GAN: where nothing is normalised over the batch, what one with the whole batch learns.

Batch norm differs: each process normalises by the moments of its own share, so that gradients are those of two smaller
batches, and running variances are the mean of theirs. Minibatch groups lie within a share.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from stages.ranks import free_port
from tests.conftest import ROOT
from tests.stages.joint_steps import CASES

SECONDS = 300
EXACT = ("stylegan2", "r3gan", "progan")  # without batch norm
Found = dict[str, Tensor]


def take_steps(folder: Path, count: int) -> list[Found]:
    """Take the steps in so many processes; returns what each wrote."""
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"} if count > 1 else {"OMP_NUM_THREADS": "1"}
    files = [folder / f"{number}-of-{count}.safetensors" for number in range(count)]
    processes = []
    for number, file in enumerate(files):
        mine = shared | {"RANK": str(number), "LOCAL_RANK": str(number)} if count > 1 else {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "tests.stages.joint_steps", str(file)]
        processes.append(subprocess.Popen(command, cwd=ROOT, env=os.environ | mine, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=SECONDS)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * count, errors
    return [load_file(file) for file in files]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What one process with the whole batch learns."""
    (found,) = take_steps(tmp_path_factory.mktemp("alone"), 1)
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    """What each of two processes learns."""
    return take_steps(tmp_path_factory.mktemp("both"), 2)


def of(found: Found, prefix: str) -> Found:
    return {key.removeprefix(prefix): value for key, value in found.items() if key.startswith(prefix)}


def differences(one: Found, two: Found) -> dict[str, float]:
    assert one.keys() == two.keys()
    return {key: float((one[key].double() - two[key].double()).abs().max()) for key in one if one[key].numel()}


@pytest.mark.parametrize("case", CASES)
def test_both_processes_hold_the_same_to_the_bit(both: list[Found], case: str):
    """Networks, optimizers, spectral norms' vectors, path lengths: else they would drift apart."""
    one, two = (of(found, f"{case}/") for found in both)
    assert [name for name, difference in differences(one, two).items() if difference] == []


@pytest.mark.parametrize("case", EXACT)
@pytest.mark.parametrize("network", ["generator", "discriminator"])
def test_gradients_are_those_of_the_joint_batch(alone: Found, both: list[Found], case: str, network: str):
    """Lazy R1, R2, gradient penalty and path length included, whose gradients go through a second derivative."""
    expected, found = (of(each, f"{case}/gradients/{network}/") for each in (alone, both[0]))
    largest = max(float(value.abs().max()) for value in expected.values())
    assert largest > 0.01
    assert max(differences(expected, found).values()) <= 1e-5 * max(largest, 1)


@pytest.mark.parametrize("case", EXACT)
def test_weights_after_a_few_steps_are_those_of_the_joint_batch(alone: Found, both: list[Found], case: str):
    expected, found = (of(each, f"{case}/state/") for each in (alone, both[0]))
    weights = {key: value for key, value in differences(expected, found).items() if not key.startswith("adam_")}
    assert {"generator", "discriminator", "average"} <= {key.partition("/")[0] for key in weights}
    assert {key: value for key, value in weights.items() if value > 1e-5} == {}


def test_batch_norm_averages_the_moments_of_both_shares(alone: Found, both: list[Found]):
    """Means over both shares' pictures are those of the whole batch; variances, and so gradients, are not."""
    assert torch.allclose(both[0]["moments/running_mean"], alone["moments/running_mean"], atol=1e-6)
    assert not torch.allclose(both[0]["moments/running_var"], alone["moments/running_var"], atol=1e-4)
    expected, found = (of(each, "sngan/gradients/generator/") for each in (alone, both[0]))
    assert max(differences(expected, found).values()) > 1e-3


def test_adas_p_moves_alike_in_both(alone: Found, both: list[Found]):
    one, two = (float(found["ada/p"]) for found in both)
    assert one == two
    assert one != 0.2


def test_minibatch_groups_never_cross_processes(alone: Found, both: list[Found]):
    """A group of eight would be the whole batch: in two processes, each share of four is one of its own."""
    changed = differences(of(alone, "groups/alone"), of(alone, "groups/changed"))
    assert max(changed.values()) > 0
    first = [found[key][:4] for found in (alone, both[0]) for key in ("groups/alone", "groups/changed")]
    assert not torch.equal(first[0], first[1])  # one process: pictures of the other half matter
    assert torch.equal(first[2], first[3])
    assert not torch.equal(both[1]["groups/alone"], both[1]["groups/changed"])
