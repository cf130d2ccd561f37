"""Few-shot scoring of a model of SmolLM2-135M's shape, weights drawn: ours over lm-evaluation-harness's own model."""

from __future__ import annotations

import torch

import deadweight as dw
from gpu_sections.plan import WRONG, Emit, Plan, attempt
from gpu_sections.small_models import SMOLLM2_135M, language
from gpu_sections.turns import ratio_row

SHOTS, ITEMS, BATCH = 8, 48, 16


def scorer(plan: Plan, emit: Emit) -> None:
    shots, items = (1, 3) if plan.rehearsal else (SHOTS, ITEMS)
    lm = language(**({} if plan.rehearsal else SMOLLM2_135M))
    task = dw.load_task("embedded:sentiment")
    demonstrations = [(item, item.label) for item in task.items[:shots]]
    prompts = [task.prompt(demonstrations, item) for item in task.items[shots : shots + items]]
    answers = [task.answer(label) for label in task.labels]
    for dtype in ("float32", "bfloat16"):
        with attempt(emit, f"scorer over the harness, {dtype}"):
            from lm_eval.api.instance import Instance
            from lm_eval.models.huggingface import HFLM

            from deadweight.integrations.lm_eval import DeadweightLM

            options = {"tokenizer": lm.tokenizer, "batch_size": BATCH, "max_length": lm.max_length}
            model = lm.model.to(plan.device, getattr(torch, dtype))
            theirs, ours = HFLM(model, **options), DeadweightLM(model, **options)
            asked = [
                Instance("loglikelihood", {}, (prompt, answer), number)
                for number, prompt in enumerate(prompts)
                for answer in answers
            ]
            told = [one.loglikelihood(asked, disable_tqdm=True) for one in (ours, theirs)]
            apart = max(abs(a - b) / (1 + abs(b)) for (a, _), (b, _) in zip(*told, strict=True))
            found = ratio_row(
                f"scorer over the harness, {dtype}",
                lambda ours=ours, asked=asked: ours.loglikelihood(asked, disable_tqdm=True),
                lambda theirs=theirs, asked=asked: theirs.loglikelihood(asked, disable_tqdm=True),
                device=plan.device,
                rounds=1 if plan.rehearsal else 3,
                goal=1.0,
                items=items,
                apart=apart,
            )
            if apart > (1e-3 if dtype == "float32" else 5e-2):
                found |= {"status": WRONG, "reason": "the two do not say the same"}
            emit(found)
