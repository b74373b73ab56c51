"""Fixtures that several rooms share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def demo_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `prepare` wrote from the generated corpus, vocabulary 512: processed/ and tokenizer/aria_hindi.model."""
    from diffulex_edge.text.prepare import PrepareConfig, prepare

    root = tmp_path_factory.mktemp("demo")
    prepare(
        PrepareConfig(
            source=("demo",),
            data_dir=root / "processed",
            tokenizer=root / "tokenizer" / "aria_hindi.model",
            vocab_size=512,
            demo_documents=200,
        )
    )
    return root / "processed"
