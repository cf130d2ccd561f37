"""Few-shot scoring of SmolLM2 with the shared prefix computed once, against one pass a prompt and label."""

import torch
from side_by_side import ratio, say, where

import deadweight as dw

torch.set_num_threads(2)
lm = dw.load_lm("embedded:smollm2-135m-instruct")
task = dw.load_task("embedded:sentiment")
shots = [(item, item.label) for item in task.items[:8]]
prompts = [task.prompt(shots, item) for item in task.items[8:20]]
labels = [task.answer(label) for label in task.labels]


def one_by_one() -> torch.Tensor:
    rows = []
    with torch.inference_mode():
        for prompt in prompts:
            row = []
            for label in labels:
                context = lm.tokenizer(prompt).input_ids
                whole = lm.tokenizer(prompt + label).input_ids
                logits = lm.model(torch.tensor([whole[:-1]])).logits[0].log_softmax(-1)
                row.append(sum(float(logits[at - 1, whole[at]]) for at in range(len(context), len(whole))))
            rows.append(row)
    return torch.tensor(rows)


def ours() -> torch.Tensor:
    return dw.score_labels(lm, prompts, labels)


print(where())
print(f"largest difference: {(ours() - one_by_one()).abs().max():.1e}")
say("one pass a prompt and label", ratio(one_by_one, ours, rounds=3, warmup=0), "the time of score_labels")
