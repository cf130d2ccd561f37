"""What ``--dry-run`` says a plan will take."""

from deadweight.studies.depth.study import DepthStudy
from deadweight.studies.frame.sizes import by_kind


def test_every_cell_about_a_vision_model_was_weighed():
    study = DepthStudy(
        vision="embedded:digits-vit", shards=2, trained=False, experiments=("positions", "cls", "shorten", "exit")
    )
    kinds = by_kind(study.cells())
    assert {kind for _, kind, *_ in kinds} == {"shard", "profile", "skip", "positions", "cls", "shorten", "exit"}
    assert all(size > 0 for *_, size in kinds)
    work = {kind: seconds for _, kind, _, seconds, _ in kinds}
    assert work["shorten"] > work["positions"] > work["skip"] > work["exit"] > work["cls"] > 0
