//! What a checkpoint is, and what is refused.

use std::fmt;

/// One checkpoint of a cascade. `target_exit_rate` is what thresholds are steered to, `exit_confidence` where tokens exit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LayerConfig {
    pub layer_idx: i32,
    pub target_exit_rate: f32,
    pub initial_threshold: f32,
    pub confidence_weight: f32,
    pub exit_confidence: f32,
}

impl LayerConfig {
    /// With the seed's one number for both: exit when C >= `target_exit_rate`.
    pub fn new(layer_idx: i32, target_exit_rate: f32, initial_threshold: f32, confidence_weight: f32) -> Self {
        Self { layer_idx, target_exit_rate, initial_threshold, confidence_weight, exit_confidence: target_exit_rate }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let positive = |x: f32| x > 0.0 && x.is_finite();
        let sound = self.layer_idx >= 0
            && self.target_exit_rate > 0.0
            && self.target_exit_rate < 1.0
            && positive(self.initial_threshold)
            && positive(self.confidence_weight)
            && self.exit_confidence >= 0.0;
        if sound { Ok(()) } else { Err(Error(format!("{self:?} is no checkpoint"))) }
    }
}

/// What was asked for makes no sense; says why.
#[derive(Debug, PartialEq, Eq)]
pub struct Error(pub String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
