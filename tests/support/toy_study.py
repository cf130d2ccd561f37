"""A study whose cells are those of `toy`, and the command line that knows it: ``python -m toy_study run FILE …``."""

from dataclasses import replace
from typing import ClassVar

import toy
from pydantic import Field

from deadweight.statistics import Estimate
from deadweight.studies.frame import STUDIES, Effect, Experiment, Study
from deadweight.studies.frame.quantity import ACCURACY


class Squares(Experiment):
    """One cell squares a number, or suffers what befalls it."""

    kind: ClassVar[str] = "one"

    def cells(self, study, subject):
        more = {"name": study.name} if study.name else {}
        bad = [toy.one(1000 + number, what, **more) for number, what in enumerate(study.whats)]
        made = [*bad, *toy.cells(study.count, study.pause, **more)]
        return [replace(cell, spread=study.spread) for cell in made]

    def run(self, study, cell, bench):
        return toy.work(cell, bench)

    def effects(self, records, margin):
        squares = [record.result["square"] for record in records]
        if not squares:
            return []
        middle = Estimate(sum(squares) / len(squares), min(squares), max(squares), len(squares), 0.5)
        name = records[0].cell.params.get("name", "")
        return [
            Effect(
                "squares", "", f"Squaring {name}", ACCURACY, middle, judged=True,
                evidence=tuple(record.key for record in records), detail=name,
            )
        ]  # fmt: skip

    def figures(self, records, settled, margin):
        return []


class ToyStudy(Study):
    """Squares, and whatever befalls them."""

    kind: ClassVar[str] = "toy"
    EXPERIMENTS: ClassVar = (Squares(),)

    count: int = Field(default=3, description="cells")
    pause: float = Field(default=0.0, description="seconds a cell sleeps")
    whats: tuple[str, ...] = Field(default=(), description="what befalls the first cells")
    name: str = Field(default="", description="a text that goes everywhere texts go")
    spread: bool = Field(default=False, description="whether every process of a launcher takes part")

    def run(self, cell, bench):
        return toy.work(cell, bench)


if __name__ == "toy_study":
    STUDIES.add("toy", ToyStudy)
elif __name__ == "__main__":
    import toy_study  # noqa: F401  # once more, under the name that worker processes know it by

    from deadweight.cli import main

    main()
