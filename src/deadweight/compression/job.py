"""A compression as the command line asks for it: from source strings to a folder with the smaller model."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from deadweight.anatomy import anatomy
from deadweight.compression.budget import budget_of
from deadweight.compression.compress import compress
from deadweight.compression.page import write
from deadweight.compression.report import Compression
from deadweight.data import load_images, load_text
from deadweight.data.limit import check_limit
from deadweight.errors import InputError
from deadweight.evaluation import token_sequences
from deadweight.lab import write_atomically
from deadweight.loading import load, load_lm, model_source, save
from deadweight.meters import count, machine_peak
from deadweight.models import LanguageModel, pick_device, torch_dtype, transform

IMAGES, SEQUENCES, LENGTH = 128, 64, 256  # what is looked at where nobody says
_BATCH = 16


@dataclass(frozen=True)
class Job:
    """images, text: sources of calibration inputs, one of them; limit: images or sequences; `length` tokens of one."""

    source: str
    images: str | None = None
    text: str | None = None
    parameters: float | None = None
    macs: float | None = None
    widths: bool = True
    sharing: bool = True
    depth: bool = True
    distill: int = 0
    limit: int | None = None
    length: int = LENGTH
    device: str | None = None
    dtype: str | None = None
    seed: int = 0
    trust_remote_code: bool = False

    def check(self) -> None:
        """Refuse what cannot work, before anything is read."""
        check_limit(self.limit)
        check_limit(self.length, "length")
        if min(self.seed, self.distill) < 0:
            raise InputError(f"seed = {self.seed}, distill = {self.distill}", expected="whole numbers, 0 or more")
        budget_of(self.parameters, self.macs)
        if (self.images is None) == (self.text is None):
            raise InputError(
                "images and text both" if self.images else "neither images nor text",
                expected="one of them: what the model is to keep doing well",
                cure="--images folder:my_pictures for a vision model, --text text:my_folder for a language model",
            )
        if not (self.widths or self.sharing or self.depth):
            raise InputError("nothing may be changed", expected="widths, sharing or depth")

    def open(self) -> Opened:
        """Read the model and the calibration inputs."""
        self.check()
        source = model_source(self.source)
        device, dtype = pick_device(self.device), torch_dtype(self.dtype) or torch.float32
        if self.text is None:
            model = load(self.source, dtype=dtype, device=str(device))
            if anatomy(model).kind != "vision":
                raise InputError(f"{self.source} is a language model", expected="--text", cure="--text embedded:stdlib")
            assert self.images is not None  # checked
            data = load_images(
                self.images, limit=self.limit or IMAGES, transform=transform(model), split_seed=self.seed
            )
            pictures = [data.train[index][0] for index in range(len(data.train))]
            batches = [torch.stack(pictures[start : start + _BATCH]) for start in range(0, len(pictures), _BATCH)]
            return Opened(self, model, model, batches, f"{len(pictures)} images of {self.images}")
        if source.scheme in ("timm", "torchvision"):
            raise InputError(
                f"{self.source} is a vision model", expected="--images", cure="--images folder:my_pictures"
            )
        lm = load_lm(self.source, dtype=dtype, device=device, trust_remote_code=self.trust_remote_code)
        tokens = self._tokens(lm)
        return Opened(
            self, lm, lm.model, list(torch.split(tokens, 4)), f"{len(tokens)} × {tokens.shape[1]} tokens of {self.text}"
        )

    def _tokens(self, lm: LanguageModel) -> Tensor:
        """(sequences, length) tokens, spread over the text."""
        assert self.text is not None  # checked
        text, length = load_text(self.text).train, min(self.length, lm.max_length)
        return token_sequences(self.text, text, lm.tokenizer, self.limit or SEQUENCES, length)


@dataclass(frozen=True)
class Opened:
    """Model and inputs, read."""

    job: Job
    holder: nn.Module | LanguageModel
    model: nn.Module
    batches: list[Tensor]
    told: str

    def forecast(self) -> dict[str, Any]:
        """What there is, what is asked, and how long it is likely to take: each input passes through the model some
        four times, and sums of products take about as long again."""
        example = self.batches[0][:1]
        counts = count(self.model, example)
        items = sum(len(batch) for batch in self.batches)
        size = next(self.model.parameters()).element_size()
        asked = budget_of(self.job.parameters, self.job.macs)
        share = min((v if v <= 1 else v / getattr(counts, n) for n, v in asked.items()), default=1.0)
        return {
            "model": self.job.source, "calibration": self.told, "parameters": counts.parameters, "macs": counts.macs,
            "asked": asked, "seconds": round(16 * counts.macs * items / machine_peak(seconds=0.2), 1),
            "bytes": int(counts.parameters * size * min(1.0, share)),
        }  # fmt: skip

    def run(self, note: Callable[[str, float], None] | None = None) -> nn.Module:
        """Compress; the report is ``.compression`` of what is returned."""
        job = self.job
        torch.manual_seed(job.seed)
        return compress(
            self.model, self.batches, parameters=job.parameters, macs=job.macs, widths=job.widths,
            sharing=job.sharing, depth=job.depth, distill=job.distill, note=note,
        )  # fmt: skip

    def keep(self, small: nn.Module, out: Path) -> Path:
        """Save the model with its card in `out`, and beside it ``compression.json`` and ``report.html``."""
        report = small.compression
        assert isinstance(report, Compression)
        holder = self.holder
        if isinstance(holder, LanguageModel):
            save(LanguageModel(small, holder.tokenizer, holder.name, holder.max_length), out)
        else:
            save(small, out)
        told = {"model": self.job.source, "calibration": self.told, **report.as_json()}
        write_atomically(out / "compression.json", json.dumps(told, indent=1, ensure_ascii=False))
        return write(out / "report.html", report, self.job.source, self.told)
