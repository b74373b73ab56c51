"""Fits the coefficients of src/tanh.rs: x P(x^2) / Q(x^2) to tanh on [-9, 9], P and Q of degree 4, by Lawson's weights.

Run it and compare: `python sedac-core/tanh_fit.py`. Beyond 9 tanh rounds to 1 in float32.
"""

from __future__ import annotations

import numpy as np

END, DEGREE, ROUNDS = 9.0, 4, 400


def fit() -> tuple[list[float], list[float], float]:
    """P and Q from the constant on, rounded to float32, and the largest error before rounding."""
    x = np.unique(np.append(END * np.sin(np.linspace(1e-4, np.pi / 2, 4000)), np.linspace(1e-3, END, 4000)))
    t, powers = np.tanh(x), (x[:, None] / END) ** (2 * np.arange(DEGREE + 1))
    columns = np.hstack([x[:, None] * powers, -t[:, None] * powers[:, 1:]])  # x P - t (Q - 1) = t
    scale = np.tile(END ** (-2.0 * np.arange(DEGREE + 1)), 2)
    weights, q, best = np.ones_like(x), np.ones_like(x), (np.inf, np.zeros(2 * DEGREE + 1))
    for _ in range(ROUNDS):
        by = np.sqrt(weights) / q
        solution = np.linalg.lstsq(columns * by[:, None], t * by, rcond=1e-16)[0]
        q = 1 + powers[:, 1:] @ solution[DEGREE + 1 :]
        errors = np.abs(columns[:, : DEGREE + 1] @ solution[: DEGREE + 1] / q - t)
        best = min(best, (errors.max(), solution), key=lambda each: each[0])
        weights *= errors / errors.max() + 1e-3
        weights /= weights.sum()
    error, solution = best
    rounded = (np.insert(solution, DEGREE + 1, 1.0) * scale).astype(np.float32)
    return rounded[: DEGREE + 1].tolist(), rounded[DEGREE + 1 :].tolist(), float(error)


if __name__ == "__main__":
    p, q, error = fit()
    print(f"P {p}\nQ {q}\nlargest error, in float64: {error:.2g}")
