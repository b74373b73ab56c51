"""From a denoiser to a program that a phone runs."""

from __future__ import annotations

from diffulex_edge.export.config import ExportConfig, ExportResult
from diffulex_edge.export.exporter import export_model

__all__ = ["ExportConfig", "ExportResult", "export_model"]
