//! The seed's cascade, the vectors that the Python kernels share, properties, and threads.

use std::sync::Arc;

use proptest::prelude::*;
use sedac_core::{CascadeController, ExitDecision, LayerConfig, NO_EXIT, PARALLEL_FROM, Settings};

fn seed() -> Vec<LayerConfig> {
    vec![LayerConfig::new(7, 0.2, 0.8, 0.3), LayerConfig::new(14, 0.5, 1.0, 0.4), LayerConfig::new(21, 0.8, 1.2, 0.3)]
}

fn controller() -> CascadeController {
    CascadeController::new(seed(), Settings::default()).expect("the seed's layers")
}

fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-6
}

#[test]
fn decisions_of_the_seeds_cascade() {
    let cases = [
        ([0.0, 0.0, 0.0], Some(7), 0.3, 0.310_026),
        ([0.1, 0.1, 0.1], Some(7), 0.2625, 0.278_885),
        ([0.8, 0.0, 0.0], None, 0.66, 0.0),
        ([0.8, 1.0, 0.0], None, 0.3, 0.0),
        ([0.4, 0.5, 0.6], None, 0.4515, 0.0),
    ];
    for (risk, layer, confidence, ratio) in cases {
        let found = controller().evaluate_batch(&risk, 3).expect("one row").get(0).expect("one token");
        let ExitDecision { exit_layer, accumulated_confidence, soft_exit_ratio } = found;
        assert_eq!(exit_layer, layer);
        assert!(near(accumulated_confidence, confidence) && near(soft_exit_ratio, ratio), "{risk:?}: {found:?}");
    }
}

#[test]
fn a_hard_exit_skips_everything() {
    let hard = Settings { soft_exit_enabled: false, ..Settings::default() };
    let found = CascadeController::new(seed(), hard).unwrap().evaluate_batch(&[0.0; 3], 3).unwrap();
    assert_eq!(found.soft_exit_ratio, [1.0]);
}

#[test]
fn the_vectors_that_all_kernels_share() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../diffulex_edge/tests/golden/sedac.json");
    let golden: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let bits = |name: &str| -> Vec<f32> {
        golden[name].as_array().unwrap().iter().map(|x| f32::from_bits(x.as_u64().unwrap() as u32)).collect()
    };
    let layers: Vec<i32> = golden["exit_layer"].as_array().unwrap().iter().map(|x| x.as_i64().unwrap() as i32).collect();
    let found = controller().evaluate_batch(&bits("risk"), 3).unwrap();
    assert_eq!(found.exit_layer, layers);
    assert_eq!(found.accumulated_confidence, bits("confidence"));
    assert!(found.soft_exit_ratio.iter().zip(bits("ratio")).all(|(a, b)| near(*a, b)));
}

proptest! {
    #[test]
    fn a_token_that_exits_keeps_what_it_had(risk in prop::collection::vec(-0.5f32..2.0, 3..300)) {
        let risk = &risk[..risk.len() / 3 * 3];
        let whole = controller().evaluate_batch(risk, 3).unwrap();
        let rows: Vec<f32> = risk.chunks(3).flat_map(|row| [row[0], row[1]]).collect();
        let part = controller().evaluate_batch(&rows, 2).unwrap();
        for (early, late) in part.iter().zip(whole.iter()) {
            prop_assert!(early.exit_layer.is_none() || early == late);
        }
    }

    #[test]
    fn ratios_and_confidences_stay_in_their_bounds(risk in prop::collection::vec(prop::num::f32::ANY, 3..300)) {
        let found = controller().evaluate_batch(&risk[..risk.len() / 3 * 3], 3).unwrap();
        for token in found.iter() {
            prop_assert!((0.0..=0.903_001).contains(&token.accumulated_confidence));
            prop_assert!((0.0..=1.0).contains(&token.soft_exit_ratio));
            prop_assert_eq!(token.exit_layer.is_none(), token.soft_exit_ratio == 0.0);
        }
    }
}

#[test]
fn many_tokens_are_decided_as_few_are() {
    let n = PARALLEL_FROM + 77;
    let risk: Vec<f32> = (0..3 * n).map(|i| (i * 7919 % 10_007) as f32 / 8000.0).collect();
    let whole = controller().evaluate_batch(&risk, 3).unwrap();
    let rows = 1000 * 3;
    let part = controller().evaluate_batch(&risk[risk.len() - rows..], 3).unwrap();
    assert_eq!(whole.exit_layer[n - 1000..], part.exit_layer);
    assert_eq!(whole.soft_exit_ratio[n - 1000..], part.soft_exit_ratio);
    assert!(whole.exit_layer.contains(&NO_EXIT) && whole.exit_layer.contains(&14));
}

#[test]
fn eight_threads_lose_no_update() {
    let layer = LayerConfig { initial_threshold: 1.0, ..LayerConfig::new(0, 0.5, 1.0, 1.0) };
    let alpha = 1.0 / 65_536.0; // a power of two: sums are exact in any order
    let shared = Arc::new(CascadeController::new(vec![layer], Settings { alpha, ..Settings::default() }).unwrap());
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || (0..2000).for_each(|_| drop(shared.update(0, &[100.0]))))
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(shared.thresholds(), [1.0 + 16_000.0 * alpha * 0.5]);
}

#[test]
fn thresholds_track_their_rate_one_sample_at_a_time() {
    for rate in [0.2f32, 0.5, 0.8] {
        let layer = LayerConfig::new(0, rate, 0.9, 1.0);
        let one = CascadeController::new(vec![layer], Settings::default()).unwrap();
        let (mut state, mut below) = (1u32, 0);
        for i in 0..20_000 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let risk = (state >> 8) as f32 / (1 << 24) as f32;
            below += usize::from(i >= 2000 && risk < one.thresholds()[0]);
            one.update_threshold(0, &[risk]).unwrap();
        }
        assert!((below as f32 / 18_000.0 - rate).abs() < 0.01);
    }
}

#[test]
fn nonsense_is_refused_with_its_reason() {
    let wrong = |layers| CascadeController::new(layers, Settings::default()).unwrap_err().0;
    assert!(wrong(vec![]).contains("must rise"));
    assert!(wrong(vec![LayerConfig::new(7, 0.2, 0.8, 0.3); 2]).contains("must rise"));
    assert!(wrong(vec![LayerConfig::new(7, 0.2, f32::NAN, 0.3)]).contains("no checkpoint"));
    assert!(controller().evaluate_batch(&[0.0; 4], 3).is_err());
    assert!(controller().update_threshold(8, &[0.0]).unwrap_err().0.contains("no checkpoint"));
    assert!(controller().update_threshold(7, &[]).unwrap_err().0.contains("one sample"));
}
