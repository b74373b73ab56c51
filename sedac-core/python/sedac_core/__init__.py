"""SEDAC's cascade in Rust, over NumPy's buffers. `diffulex_edge.sedac` uses it where it is installed."""

from sedac_core._core import INTERFACE, Cascade

__all__ = ["INTERFACE", "Cascade"]
