"""What ``--dry-run`` says a plan will take."""

from deadweight.studies.depth.study import DepthStudy
from deadweight.studies.frame.sizes import _SEEN, by_kind


def test_every_cell_about_a_vision_model_was_weighed():
    study = DepthStudy(
        vision="embedded:digits-vit", shards=2, trained=False, experiments=("positions", "cls", "shorten", "exit")
    )
    kinds = by_kind(study.cells())
    assert {kind for _, kind, *_ in kinds} == {"shard", "profile", "skip", "positions", "cls", "shorten", "exit"}
    assert {(study, kind) for study, kind, *_ in kinds} <= set(_SEEN)
    work = {kind: seconds for _, kind, _, seconds, _ in kinds}
    assert work["shorten"] > work["positions"] > work["skip"] > work["exit"] > work["cls"] > 0
