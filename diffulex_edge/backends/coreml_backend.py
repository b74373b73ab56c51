"""CoreML: Apple's processors. Programs are lowered anywhere, and run where macOS or iOS is."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from diffulex_edge.backends.base import Availability, installed


@dataclass(frozen=True)
class CoremlBackend:
    name: str = "coreml"
    about: str = "Apple's CPU, GPU and Neural Engine: macOS 15, iOS 18 and newer, in fp16"
    tested: str = "made; never run, for that takes macOS"
    vectors: bool = False
    integers: bool = False
    allowed: frozenset[str] = frozenset()

    def available(self) -> Availability:
        return installed("executorch", "coreml", "export") and installed("coremltools", "coreml", "export")

    def runs(self) -> Availability:
        if sys.platform != "darwin":
            return Availability(reason=f"coreml runs on macOS and iOS, this is {sys.platform}")
        return self.available()

    def quantizer(self) -> None:
        return None

    def partitioners(self) -> list[Any]:
        self.available().need()
        import coremltools
        from executorch.backends.apple.coreml.compiler import CoreMLBackend
        from executorch.backends.apple.coreml.compiler.coreml_preprocess import MULTIMETHOD_WEIGHT_SHARING_STRATEGY
        from executorch.backends.apple.coreml.partition import CoreMLPartitioner

        specs = CoreMLBackend.generate_compile_specs(
            compute_precision=coremltools.precision.FLOAT16,
            minimum_deployment_target=coremltools.target.iOS18,
        )
        apart = MULTIMETHOD_WEIGHT_SHARING_STRATEGY.DISABLED  # sharing wants as many parts in each method
        specs.append(CoreMLBackend.generate_multimethod_weight_sharing_strategy_compile_spec(apart))
        return [CoreMLPartitioner(compile_specs=specs, take_over_mutable_buffer=False)]
