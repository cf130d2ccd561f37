"""A small ViT with structure in its activations: it was trained on patterns under noise."""

import pytest
import torch

import deadweight as dw


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Models this small only wait for a second thread."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(2)


@pytest.fixture(scope="session")
def trained():
    """(model, 48 pictures, 64 others with their classes)."""
    torch.manual_seed(0)
    model = dw.load("embedded:digits-vit", patch_size=2, embed_dim=24, depth=4, num_heads=2, num_classes=4)
    patterns = torch.randn(4, 1, 8, 8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    model.train()
    for _ in range(80):
        labels = torch.randint(4, (32,))
        loss = torch.nn.functional.cross_entropy(model(patterns[labels] + 0.5 * torch.randn(32, 1, 8, 8)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    labels = torch.randint(4, (64,))
    others = patterns[labels] + 0.5 * torch.randn(64, 1, 8, 8)
    return model.eval(), patterns[torch.randint(4, (48,))] + 0.5 * torch.randn(48, 1, 8, 8), others, labels
