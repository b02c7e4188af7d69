"""Settings of what is measured and shipped: evaluation, export, benchmark."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages.settings.base import Count, Positive, Strict


class EvaluateSettings(Strict):
    """What is measured: number of generated pictures, batch, seed, and where FID's Inception weights lie."""

    count: Annotated[int, Field(ge=64)]
    batch: Count
    seed: Annotated[int, Field(ge=0)]
    kid_subset: Annotated[int, Field(ge=2)]
    kid_subsets: Count
    neighbours: Count
    inception: str | None

    @model_validator(mode="after")
    def _enough_pictures(self) -> "EvaluateSettings":
        for name in ("kid_subset", "neighbours"):
            if getattr(self, name) >= self.count:
                raise ValueError(f"{name} is {getattr(self, name)}, but count is only {self.count}; raise count")
        return self


class ExportSettings(Strict):
    """The ONNX file: opset and the largest absolute difference to torch that is allowed."""

    opset: Annotated[int, Field(ge=18, le=22)]
    tolerance: Positive


class BenchmarkSettings(Strict):
    """What the benchmark times: batch sizes, providers, seconds per row."""

    batches: list[Count] = Field(min_length=1)
    providers: list[Literal["CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"]] = Field(
        min_length=1
    )
    seconds: Positive
    min_runs: Annotated[int, Field(ge=10)]
    threads: Annotated[int, Field(ge=0)]
