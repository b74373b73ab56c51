//! `sedac_core._core`: the cascade over NumPy's buffers. The arithmetic runs without the GIL.

use numpy::{PyReadonlyArray1, PyReadonlyArray2, PyReadwriteArray1, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use sedac_core::{CascadeController, Error, LayerConfig, Settings, Tokens};

fn refused(error: Error) -> PyErr {
    PyValueError::new_err(error.0)
}

/// A kernel for `diffulex_edge.sedac`: see `kernel.Kernel` there.
#[pyclass(frozen, module = "sedac_core")]
struct Cascade(CascadeController);

#[pymethods]
impl Cascade {
    /// layers: (layer_idx, target_exit_rate, threshold, weight, exit_confidence) of each checkpoint.
    #[new]
    fn new(layers: Vec<(i32, f32, f32, f32, f32)>, alpha: f32, decay: f32, soft: bool) -> PyResult<Self> {
        let layers = layers.into_iter().map(
            |(layer_idx, target_exit_rate, initial_threshold, confidence_weight, exit_confidence)| LayerConfig {
                layer_idx,
                target_exit_rate,
                initial_threshold,
                confidence_weight,
                exit_confidence,
            },
        );
        let settings = Settings { alpha, confidence_decay: decay, soft_exit_enabled: soft };
        CascadeController::new(layers.collect(), settings).map(Self).map_err(refused)
    }

    fn thresholds(&self) -> Vec<f32> {
        self.0.thresholds()
    }

    fn update(&self, py: Python<'_>, at: usize, samples: PyReadonlyArray1<'_, f32>) -> PyResult<f32> {
        let samples = samples.as_slice()?;
        py.detach(|| self.0.update(at, samples)).map_err(refused)
    }

    #[allow(clippy::too_many_arguments)] // the interface of every kernel
    fn observe(
        &self,
        py: Python<'_>,
        at: usize,
        threshold: f32,
        risk: PyReadonlyArray1<'_, f32>,
        mut exit_layer: PyReadwriteArray1<'_, i32>,
        mut confidence: PyReadwriteArray1<'_, f32>,
        mut ratio: PyReadwriteArray1<'_, f32>,
    ) -> PyResult<()> {
        let risk = risk.as_slice()?;
        let tokens = Tokens {
            exit_layer: exit_layer.as_slice_mut()?,
            confidence: confidence.as_slice_mut()?,
            ratio: ratio.as_slice_mut()?,
        };
        py.detach(|| self.0.observe(at, threshold, risk, tokens)).map_err(refused)
    }

    fn evaluate(
        &self,
        py: Python<'_>,
        risk: PyReadonlyArray2<'_, f32>,
        mut exit_layer: PyReadwriteArray1<'_, i32>,
        mut confidence: PyReadwriteArray1<'_, f32>,
        mut ratio: PyReadwriteArray1<'_, f32>,
    ) -> PyResult<()> {
        let checkpoints = risk.shape()[1];
        let risk = risk.as_slice()?;
        let tokens = Tokens {
            exit_layer: exit_layer.as_slice_mut()?,
            confidence: confidence.as_slice_mut()?,
            ratio: ratio.as_slice_mut()?,
        };
        py.detach(|| self.0.evaluate(risk, checkpoints, tokens)).map_err(refused)
    }
}

#[pymodule]
mod _core {
    #[pymodule_export]
    use super::Cascade;

    /// Counts changes of the arithmetic or of the interface, so that an older build is not taken for this one.
    #[pymodule_export]
    const INTERFACE: u32 = 1;
}
