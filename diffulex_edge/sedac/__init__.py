"""SEDAC: which tokens have been thought about enough, layer by layer. It knows no model, and importing it no torch."""

from diffulex_edge.sedac.controller import SEED_LAYERS, CascadeController, CascadeState, LayerConfig
from diffulex_edge.sedac.decision import NO_EXIT, ExitDecision, ExitDecisions

__all__ = [
    "NO_EXIT",
    "SEED_LAYERS",
    "CascadeController",
    "CascadeState",
    "ExitDecision",
    "ExitDecisions",
    "LayerConfig",
]
