"""The verb that makes a model smaller."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from deadweight.cli.app import app
from deadweight.cli.options import Common
from deadweight.cli.output import progress
from deadweight.cli.whole import Whole
from deadweight.errors import InputError
from deadweight.source import with_option

if TYPE_CHECKING:
    from deadweight.compression import Compression


@app.command
def compress(
    model: str,
    *,
    images: str | None = None,
    text: str | None = None,
    parameters: float | None = None,
    macs: float | None = None,
    no_widths: bool = False,
    no_sharing: bool = False,
    no_depth: bool = False,
    distill: Whole = 0,
    length: Whole = 256,
    common: Common | None = None,
) -> int:
    """Make a trained model smaller without training and without labels, and say what that costs.

    It looks at every block, allots the budget to narrower MLPs, shared MLPs and dropped blocks, refits what is left in
    closed form, and measures on inputs held out of all that. The smaller model, its card, compression.json and
    report.html are written into the folder given with --out.

    Example: deadweight compress file:my_vit --images folder:my_pictures --parameters 0.67 --out smaller

    Args:
        model: file:FOLDER, timm:NAME, torchvision:NAME, hf:FOLDER, hf:REPO, gguf:PATH, embedded:NAME.
        images: calibration pictures of a vision model: embedded:digits, folder:PATH, hf:DATASET; 128 unless --limit.
        text: calibration text of a language model: embedded:stdlib, text:PATH; 64 sequences unless --limit.
        parameters: the budget: a share such as 0.67, or a number.
        macs: the budget in multiply-accumulates of one input: a share or a number.
        no_widths: leave the widths of the MLPs.
        no_sharing: let no blocks share an MLP.
        no_depth: drop no block.
        distill: steps of training towards the model's own outputs after that.
        length: tokens of a sequence.
    """
    from deadweight.compression.job import Job
    from deadweight.loading import check_target

    common = common or Common()
    if common.budget is not None:
        raise InputError(
            f"--budget {common.budget}",
            expected="no time for compress: it is one piece of work, and half of it is of no use",
            cure="look at fewer inputs with --limit; --dry-run says how long it would take",
        )
    if common.paths is not None:
        model = with_option(model, "paths", common.paths)
    job = Job(
        model, images, text, parameters, macs, not no_widths, not no_sharing, not no_depth, distill,
        common.limit, length, common.device, common.dtype, common.seed or 0,
    )  # fmt: skip
    out = check_target(common.out or Path("smaller"))
    opened = job.open()
    if common.dry_run:
        return _forecast(opened.forecast(), common.json)
    console = progress(common) or Console(stderr=True)
    small = opened.run(None if common.quiet else _bar(console))
    page = opened.keep(small, out)
    report: Any = small.compression
    if common.json:
        print(json_text.dumps({"out": str(out), **report.as_json()}, ensure_ascii=False))
    elif common.quiet:
        print(page)
    else:
        _tell(report, out, page)
    return 0


def _bar(console: Console) -> Any:
    """What hears how far it is: a bar in a terminal, a line a stage in a log."""
    if not console.is_terminal:
        said: list[str] = []

        def line(text: str, done: float) -> None:
            stage = text.split(",")[0] if text.startswith("distilling") else text
            if stage not in said:
                said.append(stage)
                console.print(stage, highlight=False)

        return line
    columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True)
    bar.start()
    task = bar.add_task("", total=1.0)

    def show(text: str, done: float) -> None:
        bar.update(task, description=text, completed=done)
        if done >= 1:
            bar.stop()

    return show


def _forecast(found: dict[str, Any], as_json: bool) -> int:
    if as_json:
        print(json_text.dumps(found, ensure_ascii=False))
        return 0
    from deadweight.studies.frame.sizes import format_bytes

    asked = ", ".join(f"{v:g} {n}" if v > 1 else f"{v:.0%} of the {n}" for n, v in found["asked"].items())
    print(f"{found['model']}: {found['parameters']:,} parameters, {found['macs']:,} MACs an input")
    print(f"asked: {asked}; calibration: {found['calibration']}")
    print(f"about {found['seconds'] / 60:.1f} minutes and {format_bytes(found['bytes'])} on disk")
    return 0


def _tell(report: Compression, out: Path, page: Path) -> None:
    from deadweight.compression.report import MEANING, interval_text

    table = Table(box=None, pad_edge=False)
    for name in ("", "before", "after", "95 % interval"):
        table.add_column(name, justify="left" if not name else "right", overflow="fold")
    for name, unit, scale in (("parameters", "M", 1e6), ("macs", "G", 1e9), ("bytes", "MB", 1e6), ("seconds", "s", 1)):
        one, two = (getattr(size, name) / scale for size in (report.before, report.after))
        ratio = "" if not one else f"× {two / one:.3f}"
        table.add_row(name if unit == "s" else f"{name} ({unit})", f"{one:.4g}", f"{two:.4g}", ratio)
    for m in report.measures:
        interval = interval_text(m.after)
        table.add_row(Text(MEANING[m.name]), f"{m.before:.4g}", f"{m.after.value:.4g}", interval)
    console = Console()
    console.print(table)
    console.print(report.timed, style="dim", highlight=False)
    for note in report.notes:
        console.print(f"note: {note}", markup=False, highlight=False, soft_wrap=True)
    if not report.reached:
        console.print("[yellow]the budget was not reached[/]; the model is as near as it could come", highlight=False)
    console.print(f"\nThe model: {out}   the page: {page}", highlight=False, soft_wrap=True)
