"""Where nodes really run: sessions that fall back, providers that cannot start, wheels that overwrite each other."""

import os
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
import torch

from stages.benchmark import hardware
from stages.benchmark.contestants import Policy, bound_call, line_up, open_providers
from stages.benchmark.run import check_same_weights, torch_threads
from stages.errors import GateError, InputError
from stages.export.run import build
from stages.generators import onnx_session
from stages.generators.adversarial import AdversarialGenerator
from stages.generators.onnx_session import (
    ProviderFallbackError,
    ProviderUnavailableError,
    check_single_runtime,
    diagnose,
    open_session,
)
from stages.networks.dcgan import build_generator

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
CONFIG = {"family": "dcgan", "class_names": [], "resolution": 8, "channels": 3, "latent": 6, "width": 4}
CONFIG |= {"upsample": "nearest"}
POLICY = Policy(1, spinning=False)
NO_DRIVER = b"Failed to load library x.so with error: libcuda.so.1: cannot open shared object file"


@pytest.fixture(scope="module")
def trained() -> AdversarialGenerator:
    torch.manual_seed(1)
    return AdversarialGenerator(build_generator(CONFIG), CONFIG)


@pytest.fixture(scope="module")
def data(trained) -> bytes:
    return build(trained, 20)[0]


def entry(options, name):
    """Read an option; onnxruntime raises for one that was not set."""
    try:
        return options.get_session_config_entry(name)
    except Exception:
        return None


class FakeSession:
    """A session of onnxruntime as it behaves on a machine with a GPU, or without one."""

    runs_on: dict[str, list[str]] = {}  # provider -> the operators that it is given
    starts = True
    says = b""

    def __init__(self, source, options, providers):
        os.write(2, self.says)
        strict = entry(options, "session.disable_cpu_ep_fallback") == "1"
        assert entry(options, "session.record_ep_graph_assignment_info") == "1"
        if strict and (not self.starts or CPU in self.runs_on):
            raise RuntimeError("nodes that are assigned to the default CPU EP, but fallback has been disabled")
        self.providers = [*providers, CPU] if self.starts else [CPU]

    def get_providers(self):
        return self.providers

    def get_provider_graph_assignment_info(self):
        return [
            SimpleNamespace(ep_name=name, get_nodes=lambda kinds=kinds: [SimpleNamespace(op_type=k) for k in kinds])
            for name, kinds in self.runs_on.items()
        ]


@pytest.fixture
def fake(monkeypatch):
    """Replace onnxruntime's session by one with the given behaviour."""

    def install(**behaviour):
        kind = type("Fake", (FakeSession,), behaviour)
        real = onnxruntime.InferenceSession
        monkeypatch.setattr(
            onnxruntime,
            "InferenceSession",
            lambda source, options, providers: (real if providers == [CPU] else kind)(source, options, providers),
        )
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(onnx_session, "load_provider_libraries", lambda provider: None)

    return install


def test_a_provider_that_runs_every_node_is_opened(fake, data):
    fake(runs_on={CUDA: ["Conv", "Tanh"]})
    assert open_session(data, CUDA).get_providers()[0] == CUDA
    opened = open_providers(data, [CUDA, CPU, CUDA], POLICY)
    assert list(opened.sessions) == [CUDA, CPU]
    assert all(value >= 0 for value in opened.load_ms.values())
    assert opened.skipped == []


def test_a_node_on_the_cpu_is_an_error_not_a_row(fake, data):
    fake(runs_on={CUDA: ["Conv", "Tanh"], CPU: ["Resize"]})
    with pytest.raises(ProviderFallbackError, match=r"CUDA\w+ runs 2 of 3 nodes \(Resize on CPUExecutionProvider\)"):
        open_providers(data, [CUDA, CPU], POLICY)


def test_a_node_on_the_cpu_is_seen_even_if_onnxruntime_does_not_refuse(fake, data):
    class Lenient(FakeSession):
        def __init__(self, source, options, providers):
            self.providers = [*providers, CPU]

    fake(runs_on={CPU: ["Conv"]}, __init__=Lenient.__init__)
    with pytest.raises(ProviderFallbackError, match="runs 0 of 1 nodes"):
        open_session(data, CUDA)


def test_no_assignment_at_all_is_an_error(fake, data):
    fake(runs_on={})
    with pytest.raises(ProviderFallbackError, match="none was assigned"):
        open_session(data, CUDA)


def test_a_provider_without_a_driver_is_skipped_with_cause_and_fix(fake, data, capfd):
    fake(starts=False, says=NO_DRIVER, runs_on={CPU: ["Conv"]})
    opened = open_providers(data, [CUDA, CPU], POLICY)
    assert list(opened.sessions) == [CPU]
    assert list(opened.load_ms) == [CPU]
    (entry,) = opened.skipped
    assert entry["provider"] == CUDA
    assert "driver" in entry["reason"]
    assert "GPU" in entry["fix"]
    assert "Failed to load" not in capfd.readouterr().err


def test_no_provider_left_is_an_error(fake, data):
    fake(starts=False, says=NO_DRIVER, runs_on={CPU: ["Conv"]})
    with pytest.raises(GateError, match=r"no provider of benchmark\.providers runs here .*driver"):
        open_providers(data, [CUDA], POLICY)


def test_a_build_without_the_provider_is_said(monkeypatch, data):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CPU])
    with pytest.raises(ProviderUnavailableError, match=r"built without it; install onnxruntime-gpu"):
        open_session(data, CUDA)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (NO_DRIVER.decode(), "no working NVIDIA driver"),
        ("with error: libcublasLt.so.13: cannot open shared object file: No such file", "libcublasLt.so.13 was not"),
        ('depends on "cudnn64_9.dll" which is missing', "cudnn64_9.dll was not found"),
        ("CUDA failure 100: no CUDA-capable device is detected", "sees no GPU"),
        ("Please install TensorRT libraries as mentioned", "TensorRT libraries are not installed"),
        ("\nsomething new\nmore", "something new"),
        ("", "gave no reason"),
    ],
)
def test_the_cause_is_read_from_what_onnxruntime_writes(message, reason):
    found, fix = diagnose(message)
    assert found.startswith(reason) or reason in found
    assert fix


def test_two_wheels_at_once_are_refused(monkeypatch):
    def install(*names):
        found = [SimpleNamespace(name=name) for name in names]
        monkeypatch.setattr(onnx_session.metadata, "distributions", lambda: iter(found))

    install("numpy", "onnxruntime_gpu", "onnxruntime")
    with pytest.raises(InputError, match=r"onnxruntime and onnxruntime-gpu are installed together.*pip uninstall"):
        check_single_runtime()
    install("numpy", "onnxruntime-gpu", "onnxruntime-gpu")
    check_single_runtime()


def test_this_environment_has_one_wheel():
    check_single_runtime()


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_onnxruntime_itself_is_caught_when_it_falls_back(data, capfd):
    with pytest.raises(ProviderUnavailableError, match="CUDAExecutionProvider cannot run here"):
        open_session(data, CUDA)
    assert "Failed" not in capfd.readouterr().err


def test_both_runtimes_draw_on_the_same_device(trained, data):
    opened = open_providers(data, [CPU], POLICY)
    contestants = line_up({"model": opened, "fp16": opened}, trained)
    assert [(c.runtime, c.provider, c.device, c.form) for c in contestants] == [
        ("onnxruntime", CPU, "cpu", "model"),
        ("onnxruntime", CPU, "cpu", "fp16"),
        ("torch", "eager", "cpu", "model"),
    ]
    for contestant in contestants:
        contestant.prepare(3)()


def test_bound_memory_holds_the_pictures(trained, data):
    session = open_session(data)
    kept = []

    class Spy:
        def __getattr__(self, name):
            return getattr(session, name)

        def io_binding(self):
            kept.append(session.io_binding())
            return kept[0]

    feed = trained.export_inputs(3)
    bound_call(Spy(), feed, "cpu")()
    np.testing.assert_array_equal(kept[0].copy_outputs_to_cpu()[0], session.run(None, feed)[0])


def test_weights_of_another_training_are_refused(tmp_path):
    exported, trained, other = (AdversarialGenerator(build_generator(CONFIG), CONFIG) for _ in range(3))
    exported.identity, trained.identity, other.identity = ({"weights": digit * 64} for digit in "aba")
    with pytest.raises(InputError, match=r"was exported from weights aaaaaaaaaaaa, but .* holds bbbbbbbbbbbb"):
        check_same_weights(exported, trained, tmp_path / "model.onnx", tmp_path)
    check_same_weights(exported, other, tmp_path, tmp_path)


def test_torch_gets_its_threads_back():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ZeroDivisionError
    assert torch.get_num_threads() == before


def test_hardware_is_the_same_twice_and_names_the_machine():
    found = hardware.describe_hardware()
    assert found == hardware.describe_hardware()
    assert found["cpu"]
    assert found["memory_gib"] > 0
    assert (found["gpu"] is None) == (not torch.cuda.is_available())
    assert "onnx" in hardware.describe_versions()
