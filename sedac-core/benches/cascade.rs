//! `cargo bench`: a batch through three checkpoints, by tokens.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use sedac_core::{CascadeController, ExitDecisions, LayerConfig, Settings};

fn risks(n: usize) -> Vec<f32> {
    (0..n).scan(1u32, |x, _| {
        *x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Some((*x >> 8) as f32 / (1 << 24) as f32)
    })
    .collect()
}

fn evaluate(criterion: &mut Criterion) {
    let layers = vec![
        LayerConfig::new(7, 0.2, 0.8, 0.3),
        LayerConfig::new(14, 0.5, 1.0, 0.4),
        LayerConfig::new(21, 0.8, 1.2, 0.3),
    ];
    let controller = CascadeController::new(layers, Settings::default()).expect("the seed's layers");
    let mut group = criterion.benchmark_group("evaluate");
    for n in [1, 8, 64, 512, 4096, 16_384, 65_536, 1 << 20] {
        let (risk, mut decisions) = (risks(3 * n), ExitDecisions::blank(n));
        group.throughput(Throughput::Elements(n as u64));
        group.bench_with_input(BenchmarkId::from_parameter(n), &risk, |bencher, risk| {
            bencher.iter(|| {
                decisions.exit_layer.fill(sedac_core::NO_EXIT);
                decisions.accumulated_confidence.fill(0.0);
                controller.evaluate(risk, 3, decisions.tokens()).expect("shapes that fit");
            });
        });
    }
    group.finish();
}

criterion_group!(benches, evaluate);
criterion_main!(benches);
