"""Settings of what is measured and shipped: evaluation, export, benchmark."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.settings.base import Count, Positive, Share, Strict


class UsefulnessSettings(Strict):
    """Trainings of a classifier with and without generated pictures: seeds (0: none), kimg each, labels' confidence."""

    seeds: Annotated[int, Field(ge=0)]
    kimg: Positive
    confidence: Share

    @model_validator(mode="after")
    def _paired(self) -> "UsefulnessSettings":
        if self.seeds == 1:
            raise ValueError("seeds is 1, but an interval needs 2 or more; 0 switches usefulness off")
        return self


class SamplingSettings(Strict):
    """What is tried of models that take it: steps, strengths of guidance, truncations (none: off); pictures of each.

    Truncations are in the model's own unit: psi of mapped styles, or a bound of the latent in standard deviations.
    Those above its default, which truncate nothing, are left out.
    """

    steps: list[Annotated[int, Field(ge=1, le=1000)]] = [5, 10, 20]
    guidance: list[Annotated[float, Field(ge=0)]] = [1, 3, 5, 7.5, 15]
    truncation: list[Annotated[float, Field(ge=0)]] = [0, 0.3, 0.5, 0.7, 1, 2]
    count: Annotated[int, Field(ge=16)] = 300


class EvaluateSettings(Strict):
    """What is measured: number of generated pictures, in which features, with what effort, and Inception's weights."""

    count: Annotated[int, Field(ge=64, le=10**6)]  # a million seeds belong to each value of `seed`
    batch: Count
    seed: Annotated[int, Field(ge=0)]
    features: list[Literal["efficientnet_lite0", "domain"]]
    engine: Literal["exact", "fast"]
    resize: Literal["tf", "pytorch", "clean"]
    kid_subset: Annotated[int, Field(ge=2)]
    kid_subsets: Count
    neighbours: Count
    resamples: Annotated[int, Field(ge=20)]
    path_pairs: Annotated[int, Field(ge=4)]
    usefulness: UsefulnessSettings
    inception: str | None
    sampling: SamplingSettings = SamplingSettings()

    @model_validator(mode="after")
    def _general_features(self) -> "EvaluateSettings":
        if "efficientnet_lite0" not in self.features and self.inception is None:
            raise ValueError("features has no general network; add efficientnet_lite0, or set inception")
        if len(set(self.features)) != len(self.features):
            raise ValueError(f"features is {self.features}; name each once")
        return self

    @model_validator(mode="after")
    def _enough_pictures(self) -> "EvaluateSettings":
        for name, needed in {"kid_subset": self.kid_subset, "neighbours": self.neighbours + 1}.items():
            if needed > self.count:
                raise ValueError(f"{name} is {getattr(self, name)}, but count is only {self.count}; raise count")
        return self


class ExportSettings(Strict):
    """The ONNX file: opset and the largest absolute difference to torch that is allowed.

    `sampled_tolerance` is that of models that draw in steps, each of which carries the rounding of those before it.
    `variants` are smaller forms of the file, written beside it.
    """

    opset: Annotated[int, Field(ge=18, le=22)]
    tolerance: Positive
    sampled_tolerance: Positive = 0.01
    variants: list[Literal["fp16", "int8"]] = []


class PsnrSettings(Strict):
    """Decibels by form: the file of full precision, and the variants."""

    model: Positive
    fp16: Positive
    int8: Positive


class CertifySettings(Strict):
    """What a file must keep of torch's pictures to be released; how, says the certificate of each file.

    `count` pictures of each file are compared with torch's of the same latents. `fd_window` is the share by which the
    Fréchet distance may differ, as in MLPerf Inference's rule for SDXL; `recall_window` what recall may lose; `psnr`
    the dB that 95 % of pictures must reach, by form.
    """

    count: Annotated[int, Field(ge=64, le=10**6)]
    fd_window: Share
    recall_window: Share
    psnr: PsnrSettings


class BenchmarkSettings(Strict):
    """What the benchmark times: batch sizes, providers, seconds per row."""

    batches: list[Count] = Field(min_length=1)
    providers: list[Literal["CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"]] = Field(
        min_length=1
    )
    seconds: Positive
    min_runs: Annotated[int, Field(ge=10)]
    threads: Annotated[int, Field(ge=0)]
