"""The cache that decoding keeps, and which mechanisms no other beats on both loss and a cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pandas as pd

from deadweight.lab import Records
from deadweight.report import Table
from deadweight.statistics import Estimate, front
from deadweight.studies.attention.names import named
from deadweight.studies.attention.records import MISSING, held_out, joules, layers, number, timed_model, trained
from deadweight.studies.frame.effects import Effect
from deadweight.studies.frame.experiment import Derived
from deadweight.studies.frame.quantity import SHARE
from deadweight.studies.frame.verdicts import Settled


class CacheSize(Derived):
    """The smallest cache against the reference's; exact, for it follows from shapes."""

    kind: ClassVar[str] = "cache"

    def effects(self, records: Records, margin: float) -> list[Effect]:
        timed = layers(records)
        if not timed:
            return []
        facts, base = timed[-1].result["mechanisms"], timed[-1].result["reference"]
        length = timed[-1].cell.params["length"]
        name = min(facts, key=lambda one: int(facts[one]["cache_bytes"]))
        if name == base:
            return []
        share = facts[name]["cache_bytes"] / facts[base]["cache_bytes"]
        options = timed[-1].cell.params["mechanisms"][name]
        statement = (
            f"After {length:,} tokens {named(name, options)} keeps {facts[name]['cache_bytes']:,} bytes per layer for "
            f"decoding, {share:.1%} of what {named(base)} keeps."
        )
        estimate = Estimate(share, None, None, 1, None, 0.0, "exact, from shapes")
        return [Effect("cache", "", "", SHARE, estimate, evidence=(timed[-1].key,), statement=statement)]

    def tables(self, records: Records, settled: Sequence[Settled], margin: float) -> list[Table]:
        model = timed_model(records)
        if model is None:
            return []
        found = model.measured["mechanisms"]
        names = [name for name in trained(records) if name in found]
        costs: dict[str, dict[str, float | str]] = {
            "time of a training step": {n: found[n]["seconds"]["value"] for n in names},
            "peak memory of a training step": {n: float(found[n]["peak_bytes"]) for n in names},
            "energy of a training step": {n: number(joules(found[n])) for n in names},
            "cache bytes per token": {n: model.result["mechanisms"][n]["cache_bytes_per_token"] for n in names},
        }
        rows = []
        for cost, values in costs.items():
            known = {n: (value, held_out(records, n)) for n, value in values.items() if isinstance(value, float)}
            rows.append({"cost": cost, "on the front, cheapest first": ", ".join(front(known)) or MISSING})
        caption = "Mechanisms that no other beats on both the mean held-out loss and the cost."
        return [Table("Pareto front of loss and cost", pd.DataFrame(rows), caption)] if names else []


__all__ = ["CacheSize"]
