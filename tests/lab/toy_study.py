"""A study whose cells are those of `toy`, and the command line that knows it: ``python -m toy_study run FILE …``."""

from dataclasses import replace
from typing import ClassVar

import toy
from pydantic import Field

from deadweight.lab import Estimate, Finding
from deadweight.studies.study import STUDIES, Study


class ToyStudy(Study):
    """Squares, and whatever befalls them."""

    kind: ClassVar[str] = "toy"

    count: int = Field(default=3, description="cells")
    pause: float = Field(default=0.0, description="seconds a cell sleeps")
    whats: tuple[str, ...] = Field(default=(), description="what befalls the first cells")
    name: str = Field(default="", description="a text that goes everywhere texts go")
    spread: bool = Field(default=False, description="whether every process of a launcher takes part")

    def cells(self):
        more = {"name": self.name} if self.name else {}
        bad = [toy.one(1000 + number, what, **more) for number, what in enumerate(self.whats)]
        made = [*bad, *toy.cells(self.count, self.pause, **more)]
        return [replace(cell, spread=self.spread) for cell in made]

    def run(self, cell, bench):
        return toy.work(cell, bench)

    def findings(self, records):
        squares = [record.result["square"] for record in records]
        if not squares:
            return []
        middle = Estimate(sum(squares) / len(squares), min(squares), max(squares), len(squares), 0.5)
        return [
            Finding.of(
                "squares", "toy", f"the squares {self.name}", middle, self.name or "squares", margin=0.01,
                evidence=[record.key for record in records], command=f"deadweight run {self.name}",
            )
        ]  # fmt: skip

    def sections(self, records):
        return []


if __name__ == "toy_study":
    STUDIES.add("toy", ToyStudy)
elif __name__ == "__main__":
    import toy_study  # noqa: F401  # once more, under the name that worker processes know it by

    from deadweight.cli import main

    main()
