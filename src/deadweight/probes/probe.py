"""The list of probes. A new one is a file that makes a probe of some kind (`kinds.py`), and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from deadweight.errors import InputError
from deadweight.probes.collapse import NC1, NC2, NC3
from deadweight.probes.consensus import ACI, CLS_ATTENTION, CLS_CENTRALITY
from deadweight.probes.influence import INFLUENCE
from deadweight.probes.kinds import ClassProbe, HeadProbe, ImageProbe, MomentProbe, Probe, ReadoutProbe
from deadweight.probes.positions import PE_DOMINANCE
from deadweight.probes.readout import MARGIN, NC4, NCM_ACCURACY, PROBE_ACCURACY
from deadweight.probes.scrambling_fit import ISI, R2_ALL, R2_SELF
from deadweight.probes.similarity import CENTERED_SIMILARITY, CLS_SIMILARITY, RAW_SIMILARITY
from deadweight.registry import Registry

# In the order of the table's columns; probes of other packages follow.
_OURS: dict[str, Probe] = {
    "raw_similarity": RAW_SIMILARITY,
    "centered_similarity": CENTERED_SIMILARITY,
    "cls_similarity": CLS_SIMILARITY,
    "pe_dominance": PE_DOMINANCE,
    "influence": INFLUENCE,
    "aci": ACI,
    "cls_centrality": CLS_CENTRALITY,
    "cls_attention": CLS_ATTENTION,
    "r2_self": R2_SELF,
    "r2_all": R2_ALL,
    "isi": ISI,
    "nc1": NC1,
    "nc2": NC2,
    "nc3": NC3,
    "nc4": NC4,
    "margin": MARGIN,
    "ncm_accuracy": NCM_ACCURACY,
    "probe_accuracy": PROBE_ACCURACY,
}
PROBES: Registry[Probe] = Registry(
    "probe", check=lambda it: isinstance(it, (ImageProbe, ClassProbe, ReadoutProbe, HeadProbe, MomentProbe))
)
for _name, _entry in _OURS.items():
    PROBES.add(_name, _entry)


def chosen(probes: str | Sequence[str]) -> tuple[str, ...]:
    """Names of probes in the order of the table's columns; ``"all"`` for every one.

    Raises
    ------
    InputError
        An unknown name, or none at all.
    """
    known = [*_OURS, *(name for name in PROBES.names() if name not in _OURS)]
    if isinstance(probes, str):
        probes = known if probes == "all" else [probes]
    wanted = list(probes)
    if not wanted:
        raise InputError("no probes", expected=f'"all" or some of {", ".join(known)}')
    for name in wanted:
        PROBES.get(name)
    return tuple(name for name in known if name in wanted)
