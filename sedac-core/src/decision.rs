//! What was decided: three arrays, and a view of them token by token.

/// In place of a layer.
pub const NO_EXIT: i32 = -1;

/// The arrays of n tokens that a cascade writes into, the caller's own.
#[derive(Debug)]
pub struct Tokens<'a> {
    pub exit_layer: &'a mut [i32],
    pub confidence: &'a mut [f32],
    pub ratio: &'a mut [f32],
}

/// What was decided for one token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExitDecision {
    pub exit_layer: Option<i32>,
    pub accumulated_confidence: f32,
    pub soft_exit_ratio: f32,
}

/// The decisions for a batch, as arrays; an `ExitDecision` is made when it is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ExitDecisions {
    pub exit_layer: Vec<i32>,
    pub accumulated_confidence: Vec<f32>,
    pub soft_exit_ratio: Vec<f32>,
}

impl ExitDecisions {
    pub fn blank(n: usize) -> Self {
        Self { exit_layer: vec![NO_EXIT; n], accumulated_confidence: vec![0.0; n], soft_exit_ratio: vec![0.0; n] }
    }

    pub fn tokens(&mut self) -> Tokens<'_> {
        Tokens {
            exit_layer: &mut self.exit_layer,
            confidence: &mut self.accumulated_confidence,
            ratio: &mut self.soft_exit_ratio,
        }
    }

    pub fn len(&self) -> usize {
        self.exit_layer.len()
    }

    pub fn is_empty(&self) -> bool {
        self.exit_layer.is_empty()
    }

    pub fn get(&self, token: usize) -> Option<ExitDecision> {
        let layer = *self.exit_layer.get(token)?;
        Some(ExitDecision {
            exit_layer: (layer != NO_EXIT).then_some(layer),
            accumulated_confidence: self.accumulated_confidence[token],
            soft_exit_ratio: self.soft_exit_ratio[token],
        })
    }

    pub fn iter(&self) -> impl Iterator<Item = ExitDecision> + '_ {
        (0..self.len()).filter_map(|token| self.get(token))
    }
}
