"""What to do about an effect: one value that becomes a sentence, a line of Python, and a command."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from deadweight.lab import Json

SMALLER = "smaller"  # the folder that suggested commands save to


@dataclass(frozen=True)
class Remedy:
    """The change that acts on an effect, as plain values, so that it can be written down and read back.

    model:     source of the model it is about; ``cell:KEY`` for the one a cell of this run has saved. Empty: nothing
               is loaded.
    surgery:   a surgery of :mod:`deadweight` (``drop_blocks``, ``early_exit`` …), a verb of the command line
               (``compress``, ``icl``, ``doctor``), or empty where there is only something to be said.
    arguments: of the surgery, or options of the verb.
    sentence:  in plain words, for somebody who has only read the finding.

    >>> remedy = Remedy("file:my_vit", "drop_blocks", {"indices": [2]}, "Remove the block.")
    >>> remedy.python()
    'import deadweight as dw; dw.save(dw.drop_blocks(dw.load("file:my_vit"), indices=[2]), "smaller")'
    >>> Remedy("file:my_vit", "compress", {"images": "embedded:digits", "parameters": 0.67}, "Cut it.").command()
    'deadweight compress file:my_vit --images embedded:digits --parameters 0.67 --out smaller'
    """

    model: str = ""
    surgery: str = ""
    arguments: Mapping[str, Json] = field(default_factory=dict)
    sentence: str = ""

    def python(self) -> str:
        """The change as Python that runs as it stands; empty where it is none of the surgeries."""
        if not self.surgery or self.surgery in VERBS:
            return ""
        given = ", ".join(f"{name}={_literal(value)}" for name, value in self.arguments.items())
        loaded = f"dw.load({_literal(self.model)})"
        return f"import deadweight as dw; dw.save(dw.{self.surgery}({loaded}, {given}), {_literal(SMALLER)})"

    def command(self) -> str:
        """What a person types in a shell; empty where there is nothing to type."""
        if not self.surgery:
            return ""
        if self.surgery not in VERBS:
            return shlex.join(["python", "-c", self.python()])
        saves = {"out": SMALLER} if self.surgery == "compress" else {}
        return command_line(self.surgery, {**self.arguments, **saves}, *([self.model] if self.model else []))

    def as_json(self) -> dict[str, Json]:
        return asdict(self)

    @classmethod
    def from_json(cls, found: Mapping[str, Json]) -> Remedy:
        return cls(found["model"], found["surgery"], found["arguments"], found["sentence"])


VERBS = ("compress", "mlp", "depth", "icl", "attention", "doctor")


def command_line(verb: str, options: Mapping[str, Json], *positional: str) -> str:
    """What a person types, quoted for a shell; options that are None are left out, lists repeat their flag.

    >>> command_line("icl", {"tasks": ("embedded:topic",), "k": (2, 4), "limit": None, "too_long": "drop"})
    'deadweight icl --tasks embedded:topic --k 2 --k 4 --too-long drop'
    >>> command_line("depth", {"dry_run": True})
    'deadweight depth --dry-run'
    """
    words = ["deadweight", verb, *positional]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        for item in value if isinstance(value, (list, tuple)) else [value]:
            if item is True:
                words.append(flag)
            elif item is False:
                words.append(f"--no-{name.replace('_', '-')}")
            elif item is not None:
                words += [flag, item if isinstance(item, str) else json.dumps(item)]
    return shlex.join(words)


def _literal(value: Json) -> str:
    """A Python literal in double quotes, which a shell's single quotes leave as they are."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


__all__ = ["SMALLER", "VERBS", "Remedy", "command_line"]
