"""Neural collapse from streamed class moments (Papyan, Han, Donoho 2020, in arXiv 2511.21635's use)."""

from __future__ import annotations

import numpy as np

from deadweight.probes.kinds import ClassProbe, HeadProbe
from deadweight.probes.packed_symmetric import Floats

RTOL = 1e-6
_SAME = 1e-12  # class means closer than this to their mean, relative to its length, differ by rounding


def nc1(means_CD: Floats, within_DD: Floats) -> float:
    """tr(Σ_W Σ_B⁺) / C, with Σ_W (`within_DD`) and Σ_B averaged over classes with equal weight.

    Σ_B⁺ comes from the C × C Gram of the centred class means: its non-zero eigenvalues λ and eigenvectors u give
    v = Mᵀu/√λ and tr(Σ_W Σ_B⁺) = C Σ vᵀΣ_W v / λ. At most C − 1 of them, and none below 1e-6 of the largest.
    NaN for fewer than two classes, and where all class means coincide.
    """
    classes = len(means_CD)
    if classes < 2:
        return float("nan")
    centred_CD = means_CD - means_CD.mean(0)
    values, vectors = np.linalg.eigh(centred_CD @ centred_CD.T)
    values, vectors = values[::-1][: classes - 1], vectors[:, ::-1][:, : classes - 1]
    if _coincide(means_CD, centred_CD):
        return float("nan")
    kept = values > RTOL * values[0]
    basis_DR = centred_CD.T @ vectors[:, kept] / np.sqrt(values[kept])
    return float((np.einsum("dr,dr->r", basis_DR, within_DD @ basis_DR) / values[kept]).sum())


def nc2(means_CD: Floats) -> float:
    """‖G/‖G‖_F − (I − 11ᵀ/C)/√(C − 1)‖_F with G = M Mᵀ of the centred class means: 0 for a simplex."""
    classes = len(means_CD)
    if classes < 2:
        return float("nan")
    centred_CD = means_CD - means_CD.mean(0)
    if _coincide(means_CD, centred_CD):
        return float("nan")
    gram = centred_CD @ centred_CD.T
    simplex = (np.eye(classes) - 1 / classes) / np.sqrt(classes - 1)
    return float(np.linalg.norm(gram / np.linalg.norm(gram) - simplex))


def nc3(weights_CF: Floats, means_CF: Floats) -> float:
    """‖W/‖W‖_F − M/‖M‖_F‖_F of the head's weights and the centred class means of what it is given: 0 when aligned."""
    centred_CF = means_CF - means_CF.mean(0)
    size = float(np.linalg.norm(weights_CF))
    if len(means_CF) < 2 or not size or _coincide(means_CF, centred_CF):
        return float("nan")
    return float(np.linalg.norm(weights_CF / size - centred_CF / np.linalg.norm(centred_CF)))


def _coincide(means_CD: Floats, centred_CD: Floats) -> bool:
    """Whether nothing but rounding sets the class means apart."""
    return bool(np.linalg.norm(centred_CD) <= _SAME * np.linalg.norm(means_CD))


NC1 = ClassProbe(
    "nc1",
    "spread within classes against the spread between them; 0 is full collapse",
    lambda moments, feature: nc1(moments.means[feature], moments.within(feature)),
)
NC2 = ClassProbe(
    "nc2",
    "how far the class means are from the corners of a simplex",
    lambda moments, feature: nc2(moments.means[feature]),
)
NC3 = HeadProbe("nc3", "how far the head's weights are from the class means of what it is given", nc3)
