"""Shards profiled by processes of their own merge to the profile of the whole."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from deadweight.probes import DepthProfile, profile

pytestmark = pytest.mark.slow

SHARD = """
import sys
import torch
from timm.models.vision_transformer import VisionTransformer
from deadweight.probes import profile

torch.manual_seed(0)
model = VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=2, num_classes=5).eval()
x, y = torch.load(sys.argv[1], weights_only=True)
part = slice(None, 20) if sys.argv[2] == "0" else slice(20, None)
profile(model, [(x[part], y[part])]).save(sys.argv[3])
"""


def test_two_processes(zoo, tmp_path):
    torch.save(zoo.images(), tmp_path / "images.pt")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = [
        subprocess.Popen([sys.executable, "-c", SHARD, tmp_path / "images.pt", shard, tmp_path / shard],
                         env=environment)
        for shard in "01"
    ]  # fmt: skip
    assert [process.wait(120) for process in running] == [0, 0]
    merged = DepthProfile.load(tmp_path / "0").merge(DepthProfile.load(tmp_path / "1"))

    torch.manual_seed(0)
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=16, patch_size=4, embed_dim=24, depth=3, num_heads=2, num_classes=5).eval()
    x, y = zoo.images()
    whole = profile(model, [(x[:20], y[:20]), (x[20:], y[20:])])
    for one, two in ((merged.table(), whole.table()), (merged.intervals(), whole.intervals())):
        assert list(one.columns) == list(two.columns)
        numbers = one.select_dtypes("number").columns
        np.testing.assert_allclose(one[numbers], two[numbers], rtol=1e-6, atol=1e-9)
    assert merged.phases() == whole.phases()
