//! The cascade itself. Each loop below is free of branches on data, so that it becomes vector instructions.

use rayon::prelude::*;

use crate::decision::{ExitDecisions, NO_EXIT, Tokens};
use crate::layer::{Error, LayerConfig};
use crate::tanh::tanh;
use crate::threshold::Threshold;

/// Tokens from which Rayon's threads join in: below, starting them costs more than they save.
pub const PARALLEL_FROM: usize = 1 << 18;
const SHARE: usize = 1 << 16; // tokens that a thread takes at a time
const PIECE: usize = 128; // tokens whose columns are copied out of the rows at a time, into the first-level cache

/// What holds for a cascade as a whole.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    pub alpha: f32,
    pub confidence_decay: f32,
    pub soft_exit_enabled: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { alpha: 0.01, confidence_decay: 0.9, soft_exit_enabled: true }
    }
}

/// Decides which tokens exit where. `at` counts checkpoints from 0; `layer_idx` is the model's own number.
#[derive(Debug)]
pub struct CascadeController {
    layers: Vec<LayerConfig>,
    thresholds: Vec<Threshold>,
    settings: Settings,
}

impl CascadeController {
    pub fn new(layers: Vec<LayerConfig>, settings: Settings) -> Result<Self, Error> {
        layers.iter().try_for_each(LayerConfig::check)?;
        if layers.is_empty() || layers.windows(2).any(|pair| pair[0].layer_idx >= pair[1].layer_idx) {
            return Err(Error("layer_idx must rise from checkpoint to checkpoint, and there must be one".into()));
        }
        let Settings { alpha, confidence_decay, .. } = settings;
        if !(alpha > 0.0 && alpha.is_finite() && (0.0..=1.0).contains(&confidence_decay)) {
            return Err(Error(format!("{settings:?}: alpha must be above 0, confidence_decay from 0 to 1")));
        }
        let thresholds = layers.iter().map(|layer| Threshold::new(layer.initial_threshold)).collect();
        Ok(Self { layers, thresholds, settings })
    }

    pub fn layers(&self) -> &[LayerConfig] {
        &self.layers
    }

    pub fn thresholds(&self) -> Vec<f32> {
        self.thresholds.iter().map(Threshold::get).collect()
    }

    /// Moves the threshold after the model's layer `layer_idx` one step of quantile tracking, and gives the new one.
    pub fn update_threshold(&self, layer_idx: i32, samples: &[f32]) -> Result<f32, Error> {
        match self.layers.iter().position(|layer| layer.layer_idx == layer_idx) {
            Some(at) => self.update(at, samples),
            None => Err(Error(format!("layer_idx {layer_idx} is no checkpoint"))),
        }
    }

    /// The same by checkpoint.
    pub fn update(&self, at: usize, samples: &[f32]) -> Result<f32, Error> {
        let layer = self.layer(at)?;
        if samples.is_empty() {
            return Err(Error("update needs at least one sample".into()));
        }
        Ok(self.thresholds[at].update(samples, layer.target_exit_rate, self.settings.alpha))
    }

    /// The decisions for risks of n tokens, row by row, `checkpoints` to a row.
    pub fn evaluate_batch(&self, risk_scores: &[f32], checkpoints: usize) -> Result<ExitDecisions, Error> {
        let mut decisions = ExitDecisions::blank(risk_scores.len().checked_div(checkpoints).unwrap_or(0));
        self.evaluate(risk_scores, checkpoints, decisions.tokens())?;
        Ok(decisions)
    }

    /// The same into arrays of the caller, which hold tokens before the first checkpoint.
    pub fn evaluate(&self, risk: &[f32], checkpoints: usize, tokens: Tokens<'_>) -> Result<(), Error> {
        let n = tokens.exit_layer.len();
        if !(1..=self.layers.len()).contains(&checkpoints) || risk.len() != n * checkpoints {
            return Err(Error(format!("{} risks are not {n} rows of {checkpoints}", risk.len())));
        }
        check_lengths(&tokens)?;
        let thresholds = self.thresholds();
        let work = |share: usize, tokens: Tokens<'_>| {
            let from = share * SHARE * checkpoints;
            let rows = &risk[from..from + tokens.exit_layer.len() * checkpoints];
            self.rows(&thresholds, rows, checkpoints, tokens);
        };
        if n < PARALLEL_FROM {
            work(0, tokens);
            return Ok(());
        }
        (tokens.exit_layer.par_chunks_mut(SHARE))
            .zip(tokens.confidence.par_chunks_mut(SHARE))
            .zip(tokens.ratio.par_chunks_mut(SHARE))
            .enumerate()
            .for_each(|(share, ((exit_layer, confidence), ratio))| work(share, Tokens { exit_layer, confidence, ratio }));
        Ok(())
    }

    /// One checkpoint for n tokens that come from the one before: `threshold` is the one they began with.
    pub fn observe(&self, at: usize, threshold: f32, risk: &[f32], tokens: Tokens<'_>) -> Result<(), Error> {
        let layer = self.layer(at)?;
        if risk.len() != tokens.exit_layer.len() {
            return Err(Error(format!("{} risks for {} tokens", risk.len(), tokens.exit_layer.len())));
        }
        check_lengths(&tokens)?;
        self.accumulate(layer, threshold, risk, tokens.exit_layer, tokens.confidence);
        self.ratios(tokens.exit_layer, tokens.confidence, tokens.ratio);
        Ok(())
    }

    fn layer(&self, at: usize) -> Result<&LayerConfig, Error> {
        self.layers.get(at).ok_or_else(|| Error(format!("checkpoint {at} of {}", self.layers.len())))
    }

    fn rows(&self, thresholds: &[f32], risk: &[f32], checkpoints: usize, tokens: Tokens<'_>) {
        let mut column = [0.0; PIECE];
        let pieces = (tokens.exit_layer.chunks_mut(PIECE))
            .zip(tokens.confidence.chunks_mut(PIECE))
            .zip(tokens.ratio.chunks_mut(PIECE))
            .zip(risk.chunks(PIECE * checkpoints));
        for (((exit_layer, confidence), ratio), rows) in pieces {
            for (at, layer) in self.layers[..checkpoints].iter().enumerate() {
                let column = &mut column[..exit_layer.len()];
                for (risk, row) in column.iter_mut().zip(rows.chunks_exact(checkpoints)) {
                    *risk = row[at];
                }
                self.accumulate(layer, thresholds[at], column, exit_layer, confidence);
            }
            self.ratios(exit_layer, confidence, ratio);
        }
    }

    /// The specification's float32 operations, each rounded, in its order: Rust fuses and reassociates none.
    fn accumulate(&self, layer: &LayerConfig, threshold: f32, risk: &[f32], exits: &mut [i32], confidence: &mut [f32]) {
        let decay = self.settings.confidence_decay;
        for ((risk, exit), total) in risk.iter().zip(exits).zip(confidence) {
            let conf = (threshold - risk) / threshold;
            let conf = if conf > 0.0 { conf } else { 0.0 }; // not a number is no confidence
            let conf = if conf < 1.0 { conf } else { 1.0 };
            let more = decay * *total + layer.confidence_weight * conf;
            *total = if *exit == NO_EXIT { more } else { *total };
            let here = if *total >= layer.exit_confidence { layer.layer_idx } else { NO_EXIT };
            *exit = if *exit == NO_EXIT { here } else { *exit };
        }
    }

    fn ratios(&self, exits: &[i32], confidence: &[f32], ratio: &mut [f32]) {
        let soft = self.settings.soft_exit_enabled;
        for ((exit, c), ratio) in exits.iter().zip(confidence).zip(ratio) {
            let share = if soft { tanh(c + c - 1.0) * 0.5 + 0.5 } else { 1.0 };
            *ratio = if *exit == NO_EXIT { 0.0 } else { share };
        }
    }
}

fn check_lengths(tokens: &Tokens<'_>) -> Result<(), Error> {
    let n = tokens.exit_layer.len();
    if tokens.confidence.len() == n && tokens.ratio.len() == n {
        return Ok(());
    }
    Err(Error(format!("{n} exit layers, {} confidences, {} ratios", tokens.confidence.len(), tokens.ratio.len())))
}
