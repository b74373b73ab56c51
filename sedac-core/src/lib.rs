//! SEDAC's cascade controller: tokens gather confidence across layers and exit when they have enough (seed 004).
//!
//! `diffulex_edge/sedac/controller.py` is the specification, its order of float32 operations included.

mod cascade;
mod decision;
mod layer;
mod tanh;
mod threshold;

pub use cascade::{CascadeController, PARALLEL_FROM, Settings};
pub use decision::{ExitDecision, ExitDecisions, NO_EXIT, Tokens};
pub use layer::{Error, LayerConfig};
pub use tanh::tanh;
pub use threshold::{LEAST_THRESHOLD, Threshold};
