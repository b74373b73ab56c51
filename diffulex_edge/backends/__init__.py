"""Backends by name."""

from __future__ import annotations

from collections.abc import Mapping

from diffulex_edge.backends.base import Backend
from diffulex_edge.backends.coreml_backend import CoremlBackend
from diffulex_edge.backends.openvino_backend import OpenvinoBackend
from diffulex_edge.backends.qnn_backend import QnnBackend
from diffulex_edge.backends.xnnpack_backend import XnnpackBackend

_ALL: tuple[Backend, ...] = (XnnpackBackend(), OpenvinoBackend(), CoremlBackend(), QnnBackend())
BACKENDS: Mapping[str, Backend] = {each.name: each for each in _ALL}
