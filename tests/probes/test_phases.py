"""Phases, onset and regime on curves whose answer is known."""

import numpy as np
import pytest

from deadweight.errors import InputError
from deadweight.probes import profile
from deadweight.probes.phases import best_knots, phases_of, regime, tradeoff_onset

CLIFF = [0.9, 0.3]
PLATEAU = [0.3] * 8
CLIMB = [0.4, 0.5, 0.6, 0.7]

# id: (curve, phase -> layers)
CURVES = {
    "all three": ([*CLIFF, *PLATEAU, *CLIMB], {"cliff": (0, 1), "plateau": (1, 9), "climb": (9, 13)}),
    "no climb": ([*CLIFF, *PLATEAU], {"cliff": (0, 1), "plateau": (1, 9)}),
    "no cliff": ([*PLATEAU, *CLIMB], {"plateau": (0, 7), "climb": (7, 11)}),
    "only a climb": (list(np.linspace(0, 1, 13)), {"climb": (0, 12)}),
    "a climb that levels off": (
        [*np.linspace(0, 0.6, 9), 0.62, 0.64, 0.65, 0.66],
        {"climb": (0, 8), "plateau": (8, 12)},
    ),
    "flat": ([0.5] * 13, {"plateau": (0, 12)}),
}


def noisy(curve, scale=0.005, count=60, seed=0):
    return np.array(curve) + scale * np.random.default_rng(seed).normal(size=(count, len(curve)))


@pytest.mark.parametrize("name", CURVES)
def test_phases_are_found(name):
    curve, expected = CURVES[name]
    found = phases_of("raw", np.array(curve), noisy(curve, 0.0))
    assert {phase.name: (phase.first, phase.last) for phase in found.phases} == expected
    assert set(found.missing) == {f"raw has no {name}" for name in {"cliff", "plateau", "climb"} - set(expected)}


def test_boundaries_carry_intervals():
    curve = np.array(CURVES["all three"][0])
    sure = phases_of("raw", curve, noisy(curve)).of("raw")
    assert all(phase.share == 1 for phase in sure.values())
    assert sure["plateau"].last_low <= 9 <= sure["plateau"].last_high
    doubtful = phases_of("raw", curve, noisy(curve, 0.06)).of("raw")["climb"]
    assert doubtful.first_high - doubtful.first_low > sure["climb"].first_high - sure["climb"].first_low


def test_noise_makes_no_segments():
    """Wiggles no larger than the bootstrap's own are not fitted."""
    curve = noisy([0.5] * 13, 0.01, count=1)[0]
    assert best_knots(curve, noise=1e-4) == ()
    assert best_knots(np.array(CURVES["all three"][0]), noise=1e-6) == (1, 9)


def test_onset():
    right = np.zeros((6, 400), dtype=bool)
    for layer, share in enumerate([0.2, 0.4, 0.8, 0.8, 0.8, 0.8]):
        right[layer, : int(400 * share)] = True
    falling = np.array([1.0, 0.8, 0.7, 0.5, 0.4, 0.3])
    assert tradeoff_onset(falling, right) == 2
    back = falling.copy()
    back[4] = 0.6  # rises once more after layer 3: what falls for good begins at layer 4
    assert tradeoff_onset(back, right) == 4
    assert tradeoff_onset(falling[::-1], right) is None
    right[5] = True  # the last layer still gains a fifth
    assert tradeoff_onset(falling, right) is None


@pytest.mark.parametrize(
    ("isi", "name"),
    [(-0.1, "communication collapse"), (0.006, "controlled consensus"), (0.05, "chaotic diffusion"),
     (float("nan"), "unknown")],
)  # fmt: skip
def test_regime(isi, name):
    assert regime(isi) == name


def test_of_a_profile(zoo):
    model, (x, y) = zoo.build("timm_cls"), zoo.images()
    found = profile(model, [(x, y)])
    phases = found.phases()
    assert set(phases.table()["curve"]) == {"centered_similarity", "raw_similarity"}
    assert list(phases.table().columns)[:4] == ["curve", "name", "first", "last"]
    halves = profile(model, [(x[:20], y[:20])]).merge(profile(model, [(x[20:], y[20:])]))
    assert halves.phases() == phases
    isi = found.table()["isi"]
    assert found.regime() == regime(isi[3])
    assert found.tradeoff_onset() in (None, 0, 1, 2)
    bare = profile(model, [x])
    assert bare.tradeoff_onset() is None
    with pytest.raises(InputError, match="no curve 'raw_similarity'"):
        profile(model, [x], probes=["isi"]).phases(["raw_similarity"])
    assert profile(model, [x], probes=["isi"]).regime() == found.regime()
