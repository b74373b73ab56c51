"""FLOPs are counted right, and a step that is nothing but matrix products reaches most of the machine."""

import pytest
import torch

from diffulex_edge.bench.flops import TrainingBenchConfig, benchmark_training, count_flops
from diffulex_edge.errors import UsageError

SMALL = TrainingBenchConfig(rounds=3, warmup_steps=1, sizes=(128, 256), slowest_product=0.05)


def test_a_linear_layer_counts_two_for_forward_and_four_for_backward():
    layer, x = torch.nn.Linear(8, 16, bias=False), torch.randn(4, 8, requires_grad=True)
    assert count_flops(lambda: layer(x).sum().backward()) == 6 * 4 * 8 * 16


@pytest.mark.parametrize("masked", [False, True])
def test_attention_on_a_cpu_counts_two_products_forward_and_five_backward(masked):
    q = torch.randn(1, 2, 16, 8, requires_grad=True)
    mask = torch.ones(16, 16, dtype=torch.bool) if masked else None
    product = 2 * 2 * 16 * 16 * 8
    attend = torch.nn.functional.scaled_dot_product_attention
    assert count_flops(lambda: attend(q.detach(), q.detach(), q.detach(), attn_mask=mask)) == 2 * product
    assert count_flops(lambda: attend(q, q, q, attn_mask=mask).sum().backward()) == 7 * product


def test_pure_matrix_products_use_most_of_the_machine_and_idle_steps_little():
    a = torch.randn(256, 256)
    busy = benchmark_training(lambda: [a @ a for _ in range(20)], tokens_per_step=10, dtype=torch.float32, config=SMALL)
    lazy = benchmark_training(
        lambda: [a @ a for _ in range(2)] + [torch.sin(a) for _ in range(300)],
        tokens_per_step=10,
        dtype=torch.float32,
        config=SMALL,
    )
    assert 0.3 < busy["utilisation"]["fp32"] < 2
    assert lazy["utilisation"]["fp32"] < busy["utilisation"]["fp32"] / 2
    assert busy["utilisation"]["training"] == busy["utilisation"]["fp32"]


def test_the_result_is_consistent_and_names_its_number_types():
    a = torch.randn(128, 128)
    found = benchmark_training(lambda: a @ a, tokens_per_step=7, dtype=torch.bfloat16, config=SMALL)
    assert found["flops_per_step"] == 2 * 128**3
    assert found["tokens_per_s"] == pytest.approx(7 * found["steps_per_s"])
    assert found["training_number_type"] == "bf16"
    assert set(found["gemm_gflops_per_s"]) == {"fp32", "bf16"}
    assert found["utilisation"]["training"] == found["utilisation"]["bf16"]


def test_nonsense_is_refused():
    with pytest.raises(UsageError, match="rounds=0"):
        TrainingBenchConfig(rounds=0)
    with pytest.raises(UsageError, match="sizes"):
        TrainingBenchConfig(sizes=())
