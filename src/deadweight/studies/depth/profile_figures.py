"""The charts and the table of one profile."""

from __future__ import annotations

import math

import pandas as pd

from deadweight.lab import Record
from deadweight.report import Figure, Table, charts

_SIMILARITIES = {
    "raw_similarity": "patches",
    "centered_similarity": "patches, mean patch subtracted",
    "cls_similarity": "CLS and patches",
}
_NAMES = {
    "layer": "layer",
    **_SIMILARITIES,
    "pe_dominance": "PE dominance",
    "influence": "influence",
    "aci": "ACI",
    "cls_centrality": "CLS centrality",
    "cls_attention": "attention to CLS",
    "r2_self": "R² self",
    "r2_all": "R² all",
    "isi": "ISI",
    "nc1": "NC1",
    "nc2": "NC2",
    "nc3": "NC3",
    "nc4": "NC4",
    "margin": "margin",
    "ncm_accuracy": "NCM accuracy",
    "probe_accuracy": "probe accuracy",
}


def profile_figures(record: Record) -> list[Figure]:
    """Similarity, influence, readout, scrambling, attention, positions and class collapse, as far as measured."""
    frame = pd.DataFrame(record.result["intervals"])
    figures = [*_similarity_figure(frame), *_influence_figure(frame), *_readout_figure(frame)]
    table = pd.DataFrame(record.result["table"])
    figures += [*_scrambling_figure(table), *_attention_figure(frame)]
    figures += _positions_figure(record.result.get("position_dominance") or [])
    nc1 = table[["layer", "nc1"]].dropna() if "nc1" in table else pd.DataFrame()
    nc1 = nc1[nc1["nc1"] > 0] if len(nc1) else nc1
    if len(nc1):
        chart = charts.line(nc1, "layer", "nc1", x_title="layer", y_title="NC1", y_log=True)
        caption = (
            "Spread of the images within their class against the spread between class means (NC1), logarithmic: "
            "lower is tighter, 0 would be full neural collapse."
        )
        figures.append(Figure("depth-nc1", "How tightly classes gather", caption, chart))
    return figures


def _similarity_figure(frame: pd.DataFrame) -> list[Figure]:
    shown = frame[frame["column"].isin(list(_SIMILARITIES))].replace({"column": _SIMILARITIES})
    if shown.empty:
        return []
    chart = charts.line(
        shown, "layer", "value", color="column", band=("low", "high"), x_title="layer", y_title="mean cosine"
    )
    caption = (
        "How alike the tokens of one image are. Layer 0 is what enters the first block; the last point is after the "
        "final norm. Bands are 95 % intervals over images."
    )
    return [Figure("depth-similarity", "Similarity of tokens by layer", caption, chart)]


def _scrambling_figure(table: pd.DataFrame) -> list[Figure]:
    if "r2_self" not in table or table["r2_self"].isna().all():
        return []
    names = {"r2_self": "from the token itself", "r2_all": "from everything"}
    shown = table.melt("layer", list(names), "from", "value").dropna().replace({"from": names})
    shown["value"] = shown["value"].astype(float)
    chart = charts.line(shown, "layer", "value", color="from", x_title="layer", y_title="held-out R²")
    caption = (
        "How well a token's own embedding can be predicted after each layer, on images the prediction was not fitted "
        "to. Where the two part, what a token was made of has moved to the other tokens: the gap is the scrambling "
        "index (ISI)."
    )
    return [Figure("depth-scrambling", "What is left of a token, and where", caption, chart)]


def _attention_figure(frame: pd.DataFrame) -> list[Figure]:
    names = {"cls_centrality": "CLS as a hub", "cls_attention": "attention to CLS"}
    shown = frame[frame["column"].isin(list(names))].replace({"column": names})
    if shown.empty:
        return []
    chart = charts.line(
        shown, "layer", "value", color="column", band=("low", "high"), x_title="layer", y_title="1 = like any token",
        reference=1.0,
    )  # fmt: skip
    caption = (
        "How much of a hub the CLS token is: the share of a random walk along attention that ends there, and the mean "
        "attention it gets from patches, both times the number of tokens. Below 1 it is passed by."
    )
    return [Figure("depth-attention", "Where attention goes", caption, chart)]


def _positions_figure(values: list[float | None]) -> list[Figure]:
    """PE dominance patch by patch, as the patches lie in the image where their number is a square's."""
    side = math.isqrt(len(values))
    known = [value for value in values if value is not None]
    if not known or side**2 != len(values):
        return []
    frame = pd.DataFrame(
        {"row": f"{i // side + 1}", "column": f"{i % side + 1}", "dominance": value} for i, value in enumerate(values)
    )
    chart = charts.heatmap(
        frame, "column", "row", "dominance", x_title="patch from the left", y_title="from the top",
        title="PE dominance",
    )  # fmt: skip
    caption = (
        "Length of the positional encoding at each patch over the mean length of the embeddings it is added to there: "
        f"from {min(known):.2f} to {max(known):.2f}. Above 1, a token says more about where it is than about what it "
        "shows."
    )
    return [Figure("depth-dominance", "Where the positional encoding weighs most", caption, chart)]


def _influence_figure(frame: pd.DataFrame) -> list[Figure]:
    shown = frame[frame["column"] == "influence"].copy()
    if shown.empty:
        return []
    shown["block"] = [f"block {layer}" for layer in shown["layer"]]
    chart = charts.bars_with_intervals(
        shown, "block", "value", low="low", high="high", title="influence: 1 − cosine of input and output"
    )
    caption = (
        "How far each block turns the patch tokens it is given. A small value means little change, which is not yet "
        "proof that the block can go: that is what leaving it out shows."
    )
    return [Figure("depth-influence", "How much each block changes its input", caption, chart)]


def _readout_figure(frame: pd.DataFrame) -> list[Figure]:
    shown = frame[frame["column"] == "ncm_accuracy"]
    if shown.empty:
        return []
    chart = charts.line(
        shown, "layer", "value", band=("low", "high"), x_title="layer", y_title="accuracy", y_format=".0%"
    )
    caption = (
        "Accuracy of the simplest readout, the nearest class mean, at every layer, from the feature the head reads. "
        "Each image is judged by class means of images in the other half. Band: 95 % interval."
    )
    return [Figure("depth-readout", "How well the classes can be read off each layer", caption, chart)]


def profile_table(record: Record, name: str) -> Table:
    """Every column of the profile that has values; `name` of the model, where there are several."""
    frame = pd.DataFrame(record.result["table"])
    frame = frame.dropna(axis="columns", how="all").rename(columns=_NAMES)
    notes = "; ".join(str(note) for note in record.context.get("notes", []))
    caption = f"{record.result['n']} held-out images. {_sentence(notes)}" if notes else ""
    return Table(f"The profile of {name}" if name else "The profile", frame, caption)


def _sentence(note: str) -> str:
    return f"{note[:1].upper()}{note[1:]}."


__all__ = ["profile_figures", "profile_table"]
