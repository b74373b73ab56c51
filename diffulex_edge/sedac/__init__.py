"""SEDAC: which tokens have been thought about enough, layer by layer. It knows no model, and importing it no torch."""

from diffulex_edge.sedac.controller import SEED_LAYERS, CascadeController, CascadeState, LayerConfig
from diffulex_edge.sedac.decision import ExitDecision, ExitDecisions

__all__ = ["SEED_LAYERS", "CascadeController", "CascadeState", "ExitDecision", "ExitDecisions", "LayerConfig"]
