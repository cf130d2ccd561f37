"""The tables of docs/results/icl.md from the records of a run: ``python benchmarks/results_icl.py runs/icl``.

``deadweight run mini-2511.21038 --out runs/icl`` makes the records. The answers are read a second time as calibrated
decoding would read them, which asks the model nothing. A second folder, of a run with --compare-dtype, adds the table
of what the arithmetic changes.
"""

import sys

import pandas as pd

from deadweight.lab import Records
from deadweight.studies import open_run, read_run
from deadweight.studies.icl.arithmetic import arithmetic_table
from deadweight.studies.icl.runs import read_as


def markdown(title: str, frame: pd.DataFrame) -> str:
    """The table as the documents write it: two decimals, a true minus, no NaN."""
    shown = frame.astype(object).map(cell)
    rows = [" | ".join(map(str, row)) for row in [tuple(shown.columns), *shown.itertuples(index=False)]]
    rows.insert(1, "---|" * len(shown.columns))
    return f"\n### {title}\n\n" + "\n".join(f"| {row} |" if row[-1] != "|" else f"|{row}" for row in rows)


def cell(value: object) -> str:
    if value is None or value != value:
        return "–"
    return f"{value:.2f}".replace("-", "−") if isinstance(value, float) else str(value)


def main(folder: str, compared: str | None = None) -> None:
    study, records = open_run(folder)[0], read_run(folder)[0]
    calibrated = Records([read_as(record, "calibrated") for record in records if "frames" in record.result])
    for heading, own in (("", records), (", calibrated decoding", calibrated)):
        for section in study.sections(own):
            print(f"\n## {section.title}{heading}\n\n{section.lead}")
            for table in section.tables:
                print(markdown(table.title + heading, table.frame))
    if compared:
        print(markdown("What bfloat16 changes", arithmetic_table(read_run(compared)[0]).round(3)))


if __name__ == "__main__":
    main(*sys.argv[1:3])
