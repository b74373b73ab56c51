"""Layers that the denoisers share: both ends, feed-forward, local mixing, rotary positions. They know no contexts."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffulex_edge.errors import UsageError
from diffulex_edge.model.soft_exit import Keep


def norm(width: int) -> nn.LayerNorm:
    """LayerNorm without bias: on a CPU its fused kernel is twice as fast as RMSNorm's."""
    return nn.LayerNorm(width, bias=False)


def zero_linear(inner: int, width: int) -> nn.Linear:
    """A projection back into the residual stream; it starts at zero, so a new layer is the identity."""
    layer = nn.Linear(inner, width, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


def head_of(tokens: nn.Embedding, bias: nn.Parameter | None = None) -> nn.Linear:
    """A head of an embedding's very parameter, and a bias (V,)."""
    layer = nn.Linear(tokens.embedding_dim, tokens.num_embeddings, bias=False, device="meta")
    layer.weight = tokens.weight
    layer.bias = bias  # type: ignore[assignment]  # torch's own annotation knows no layer without one
    return layer


class Ends(nn.Module):
    """Token embedding, noise-level embedding, final norm and the tied head with a bias of its own.

    The bias is meant to start at the log unigram frequencies (`set_unigram`), which skips the unigram plateau.
    """

    head: nn.Linear | None  # with `head_bias`; None: tied

    def __init__(self, vocab_size: int, width: int, timesteps: int | None) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.token_norm = norm(width)
        self.time = nn.Embedding(timesteps + 1, width) if timesteps else None
        if self.time is not None:
            nn.init.zeros_(self.time.weight)
        self.head_norm = norm(width)
        self.head_bias = nn.Parameter(torch.zeros(vocab_size))
        self.head = None

    def embed(self, ids: Tensor, t: Tensor | None) -> Tensor:
        """From ids (B, L), and t (B,) in [0, 1] where the model is timed, to (B, L, D)."""
        x = self.token_norm(self.tokens(ids))
        if self.time is None:
            return x
        if t is None:
            raise UsageError("this model is conditioned on the noise level: pass t (B,)")
        index = (t * (self.time.num_embeddings - 1)).round().long()
        return x + self.time(index)[:, None]

    def logits(self, x: Tensor, rows: Tensor | None) -> Tensor:
        """From (B, L, D) to logits: (n, V) for the rows asked for, (B, L, V) for None."""
        if rows is not None:
            x = x[rows]
        x = self.head_norm(x)
        if self.head is not None:
            return self.head(x)
        return F.linear(x, self.tokens.weight, self.head_bias.to(x.dtype))

    def untie(self) -> None:
        """Gives the head a layer of its own, on the embedding's weights: for what changes the one and not the other."""
        if self.head is None:
            self.head = head_of(self.tokens, self.head_bias)

    def no_logits(self) -> Tensor:
        return self.head_bias.new_zeros(0, len(self.head_bias))

    @torch.no_grad()
    def set_unigram(self, counts: Tensor) -> None:
        """Head bias := log of the smoothed frequencies of tokens, counts (V,)."""
        smoothed = counts.to(self.head_bias) + 0.5
        self.head_bias.copy_(torch.log(smoothed / smoothed.sum()))


class SwiGLU(nn.Module):
    """W_down(silu(W_gate x) * W_up x), arXiv:2002.05202; gate and up are one product."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = zero_linear(inner, width)

    def forward(self, x: Tensor, keep: Keep | None = None) -> Tensor:
        """keep: how many of the channels an early exit has left each token (B, L); None: all."""
        if keep is not None:
            return keep.narrowed(self, x, keep.share)
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


def heads(x: Tensor, n_heads: int) -> Tensor:
    """(B, L, H * E) -> (B, H, L, E)."""
    return x.unflatten(-1, (n_heads, -1)).transpose(1, 2)


def merge(x: Tensor) -> Tensor:
    """(B, H, L, E) -> (B, L, H * E)."""
    return x.transpose(1, 2).flatten(2)


def turns(positions: Tensor, width: int, theta: float = 10_000.0) -> Tensor:
    """Cosine and sine (2, L, E / 2) of the rotary angles of positions (L,), arXiv:2104.09864, for heads of width E."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, device=positions.device) * (-math.log(theta) / half))
    angle = positions[:, None] * frequency
    return torch.stack((angle.cos(), angle.sin()))


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Rotary positions in the halves convention: x (..., L, E) by turns (2, L, E / 2), or any that broadcast to it."""
    cos, sin = turn.to(x.dtype)
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


QUERIES = 512  # rows that attend() takes at once: its scores stay small whatever the length of the text
FUSED = 1 << 14  # scores a head from which on the fused kernel is the faster in fp32


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(E)) v: q (..., H, Q, E), k and v (..., G, K, E), H a multiple of G.

    mask (..., 1, Q or 1, K) of bool: what is seen. With H > G heads share keys, in order (arXiv:2305.13245). By plain
    products: on a CPU they are up to fourteen times as fast as the fused kernel in bf16, and in fp32 where it is small.
    """
    if q.dtype == torch.float32 and q.ndim == 4 and q.shape[-2] * k.shape[-2] >= FUSED:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=q.shape[1] != k.shape[1])
    if q.shape[-2] > QUERIES:
        masks = (mask,) if mask is None or mask.shape[-2] == 1 else mask.split(QUERIES, -2)
        pieces = enumerate(q.split(QUERIES, -2))
        return torch.cat([attend(piece, k, v, masks[i % len(masks)]) for i, piece in pieces], -2)
    shared = q.shape[-3] // k.shape[-3]
    q = q * q.shape[-1] ** -0.5
    if shared == 1:
        scores = q @ k.mT
        return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(-1) @ v
    scores = q.unflatten(-3, (-1, shared)).flatten(-3, -2) @ k.mT  # the heads that share keys are rows of one product
    if mask is not None:
        scores = scores.unflatten(-2, (shared, -1)).masked_fill(~mask[..., None, :, :], -torch.inf).flatten(-3, -2)
    return (scores.softmax(-1) @ v).unflatten(-2, (shared, -1)).flatten(-4, -3)


class _DepthwiseTaps(torch.autograd.Function):
    """y[:, i] = sum_j w[j] * x[:, i + j]. Shifted multiply-adds, 3.5 times faster on a CPU than a grouped conv1d."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        length = x.shape[1] - weight.shape[0] + 1
        first, *others = weight.unbind()
        y = x[:, :length] * first
        for j, tap in enumerate(others, 1):
            y.addcmul_(x[:, j : j + length], tap)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        length = grad.shape[1]
        grad_x, grad_weight = torch.zeros_like(x), torch.empty_like(weight)
        for j in range(weight.shape[0]):
            grad_x[:, j : j + length].addcmul_(grad, weight[j])
            grad_weight[j] = (x[:, j : j + length] * grad).sum((0, 1))
        return grad_x, grad_weight


class ShortConv(nn.Module):
    """Depthwise convolution over time with an odd kernel; what lies beyond either edge is the halo, or zero."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.reach = kernel // 2  # tokens of halo that it reads
        self.taps = nn.Parameter(torch.randn(kernel, width) / math.sqrt(kernel))

    def recall(self, halo: Tensor) -> Tensor:
        return halo

    def forward(self, x: Tensor, halo: Tensor | None, halo_real: Tensor | None, real: Tensor | None) -> Tensor:
        """x (B, L, D), zero at columns that are not real; halo (B, reach, D), zero where there was no text."""
        if halo is None:
            padded = F.pad(x, (0, 0, self.reach, self.reach))
        else:
            padded = torch.cat((halo.to(x.dtype), x, x.new_zeros(len(x), self.reach, x.shape[2])), 1)
        return _DepthwiseTaps.apply(padded, self.taps.to(x.dtype))


class LocalAttention(nn.Module):
    """Exact attention to the tokens at most `window` away, with relative rotary positions. Cost O(L * window)."""

    def __init__(self, width: int, inner: int, n_heads: int, window: int) -> None:
        super().__init__()
        self.reach, self.n_heads = window, n_heads
        self.qkv = nn.Linear(width, 3 * inner, bias=False)
        self.out = zero_linear(inner, width)

    def recall(self, halo: Tensor) -> Tensor:
        """The halo's keys, turned, and values: (B, window, 2 H, E)."""
        _, k, v = self.qkv(halo).unflatten(-1, (3 * self.n_heads, -1)).chunk(3, 2)  # quantised weights cannot be cut
        turn = turns(torch.arange(self.reach, device=halo.device), k.shape[-1])
        return torch.cat((rotate(k, turn[:, :, None]), v), 2)

    def forward(self, x: Tensor, halo: Tensor | None, halo_real: Tensor | None, real: Tensor | None) -> Tensor:
        """x (B, L, D); halo as recalled, of which halo_real (B, window) is text. None: there was no text.

        What is longer than the window is cut into chunks of W = window tokens, else it is one chunk of W = L.
        """
        length, n_heads = x.shape[1], self.n_heads
        qk, v = self.qkv(x).unflatten(-1, (3 * n_heads, -1)).split((2 * n_heads, n_heads), 2)
        turn = turns(torch.arange(self.reach, self.reach + length, device=x.device), v.shape[-1])
        q, k = rotate(qk, turn[:, :, None]).chunk(2, 2)  # (B, L, H, E)
        if halo is None:
            k, v = (F.pad(y, (0, 0, 0, 0, self.reach, 0)) for y in (k, v))
        else:
            k, v = (torch.cat((old, new), 1) for old, new in zip(halo.to(k.dtype).chunk(2, 2), (k, v), strict=True))
        q = _cut(q, min(length, self.reach)).transpose(2, 3)  # (B, C, H, W, E)
        k, v = (self._windows(y, length).transpose(2, 3) for y in (k, v))  # (B, C, H, 3W, E)
        y = attend(q, k, v, self._mask(x, k.shape[-2], halo_real, real))
        return self.out(y.transpose(2, 3).flatten(3).flatten(1, 2)[:, :length])

    def _windows(self, x: Tensor, length: int) -> Tensor:
        """(B, window + L, H, E) -> (B, C, 3W, H, E): each chunk with its neighbours; one alone has none after it."""
        if length <= self.reach:
            return x[:, None]
        chunks = _cut(F.pad(x, (0, 0, 0, 0, 0, self.reach)), self.reach)
        return torch.cat((chunks[:, :-2], chunks[:, 1:-1], chunks[:, 2:]), 2)

    def _mask(self, x: Tensor, span: int, halo_real: Tensor | None, real: Tensor | None) -> Tensor:
        """(B or 1, C, 1, W, span): within the window, and only real tokens. A query always sees itself."""
        (batch, length, _), device, window = x.shape, x.device, self.reach
        width = min(length, window)
        there = torch.ones(1, length, dtype=torch.bool, device=device) if real is None else real
        if halo_real is None:
            before = torch.zeros(there.shape[0], window, dtype=torch.bool, device=device)
        else:
            before, there = halo_real, there.expand(batch, -1)
        keys = F.pad(torch.cat((before, there), 1), (0, span - window - width + -length % width))
        keys = keys.unfold(1, span, width)[:, :, None, None]  # (., C, 1, 1, span)
        gap = torch.arange(span, device=device) - torch.arange(window, window + width, device=device)[:, None]
        return (keys & (gap.abs() <= window)) | (gap == 0)


def _cut(x: Tensor, width: int) -> Tensor:
    """(B, L, H, E) -> (B, C, width, H, E), the last chunk filled with zeros."""
    fill = -x.shape[1] % width
    return (F.pad(x, (0, 0, 0, 0, 0, fill)) if fill else x).unflatten(1, (-1, width))
