//! A threshold that many threads move at once.

use std::sync::atomic::{AtomicU32, Ordering};

/// A threshold divides; risks that are all 0 would track it to 0.
pub const LEAST_THRESHOLD: f32 = 1e-6;

/// A float32 in an atomic.
#[derive(Debug)]
pub struct Threshold(AtomicU32);

impl Threshold {
    pub fn new(value: f32) -> Self {
        Self(AtomicU32::new(value.to_bits()))
    }

    pub fn get(&self) -> f32 {
        f32::from_bits(self.0.load(Ordering::Acquire))
    }

    /// theta += alpha * (rate - share of samples below theta), as one step that nobody else's comes between.
    ///
    /// The share depends on theta: it is counted again where another thread was faster.
    pub fn update(&self, samples: &[f32], rate: f32, alpha: f32) -> f32 {
        let mut seen = self.0.load(Ordering::Acquire);
        loop {
            let old = f32::from_bits(seen);
            let below = samples.iter().filter(|sample| **sample < old).count();
            let share = below as f32 / samples.len() as f32;
            let new = (old + alpha * (rate - share)).max(LEAST_THRESHOLD);
            match self.0.compare_exchange_weak(seen, new.to_bits(), Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return new,
                Err(now) => seen = now,
            }
        }
    }
}
