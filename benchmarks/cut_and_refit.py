"""What cuts cost with and without a closed-form refit, on a ViT trained here and on SmolLM2-135M: the table of
docs/results/compress.md.

    python benchmarks/cut_and_refit.py vision
    python benchmarks/cut_and_refit.py language

Not part of `make bench`: it measures quality, and takes some minutes. Each row is printed as it is done.
"""

import argparse
import time

import torch
from side_by_side import where
from torch import nn

import deadweight as dw
from deadweight.compression.outcome import Evaluator
from deadweight.data import as_tensors
from deadweight.surgery.calibration import calibration, evaluating


def narrow(keep, by):
    return lambda model, **options: dw.shallow_mlps(model, keep, by=by, **options)


def share(merge="first", parts="mlp"):
    return lambda model, **options: dw.group_mlps(model, merge=merge, parts=parts, **options)


def drop(*blocks):
    return lambda model, **options: dw.drop_blocks(model, blocks, **options)


def rows(depth, budget):
    """(what was done, the surgery, the refits it is shown with)."""
    spread = [depth // 4, depth // 2, 3 * depth // 4]
    both = (None, "stream")
    return [
        ("keep half of each MLP, the first units", narrow(0.5, "first"), (None, "layer")),
        ("keep half, by activation", narrow(0.5, "activation"), (None, "layer", "stream")),
        ("keep three quarters, by activation", narrow(0.75, "activation"), (None, "layer", "stream")),
        ("share MLPs between neighbours: the first's", share(), (None,)),
        ("share MLPs: the mean", share("mean"), (None,)),
        ("share MLPs: aligned, then the mean", share("align"), both),
        ("share MLPs: the best half of each", share("union"), both),
        ("share attention between neighbours", share(parts="attention"), both),
        (f"drop block {depth // 2} of {depth}", drop(depth // 2), both),
        (f"drop blocks {', '.join(map(str, spread))}", drop(*spread), both),
        (f"`compress` to {budget:.0%} of the parameters", budget, ("stream",)),
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["vision", "language"])
    parser.add_argument("--rows", type=int, nargs="*", help="numbers of the rows to do; default: all")
    parser.add_argument("--refits", nargs="*", default=["none", "layer", "stream"])
    parser.add_argument("--tokens", type=int, default=8192)
    chosen = parser.parse_args()
    torch.set_num_threads(2 if chosen.kind == "language" else 1)
    model, batches, inputs, accuracy = (vision if chosen.kind == "vision" else language)(chosen.tokens)
    print(where())
    with evaluating(model):
        evaluator = Evaluator(model, inputs)
    own = f"accuracy {accuracy(model):.4f}" if accuracy else f"loss {evaluator.own.mean('loss'):.4f}"
    print(f"intact: {own}; {sum(p.numel() for p in model.parameters()):,} parameters", flush=True)
    print("| cut | refit | parameters | " + ("cosine | accuracy" if accuracy else "loss | change") + " | seconds |")
    table = rows(dw.anatomy(model).depth, 0.67 if accuracy else 0.85)
    for number in chosen.rows if chosen.rows else range(len(table)):
        name, surgery, refits = table[number]
        for refit in (one for one in refits if (one or "none") in chosen.refits):
            began = time.perf_counter()
            small = cut(model, surgery, refit, batches)
            seconds = time.perf_counter() - began
            with evaluating(small):
                found = evaluator.evaluate(small)
            left = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in model.parameters())
            if accuracy:
                said = f"{found.mean('cosine'):.4f} | {accuracy(small):.4f}"
            else:
                said = f"{found.mean('loss'):.3f} | {found.mean('loss') - evaluator.own.mean('loss'):+.3f}"
            print(f"| {name} | {refit or 'none'} | × {left:.3f} | {said} | {seconds:.1f} |", flush=True)


def cut(model: nn.Module, surgery, refit, batches):
    if isinstance(surgery, float):
        return dw.compress(model, batches, parameters=surgery)
    needs = {"batches": batches} if refit else {}
    try:
        return surgery(model, refit=refit, **needs)
    except dw.InputError:  # by="activation" looks at inputs, refitted or not
        return surgery(model, refit=refit, batches=batches)


def vision(tokens):
    """A ViT trained on MNIST's digits; 128 training pictures to calibrate on, all held-out ones to evaluator."""
    data = dw.load_images("embedded:mnist5k")
    pictures, labels = as_tensors(data.train)
    others, truth = as_tensors(data.validation)
    torch.manual_seed(0)
    model = dw.load("embedded:digits-vit", img_size=28, patch_size=7, embed_dim=64, depth=6, num_heads=4,
                    weight_init="jax")  # fmt: skip
    steps, step = 12 * -(-len(pictures) // 64), 0
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.1)
    model.train()
    while step < steps:
        for chosen in torch.randperm(len(pictures)).split(64):
            loss = nn.functional.cross_entropy(model(pictures[chosen]), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            step += 1
    model.eval()

    def accuracy(one):
        with torch.inference_mode():
            return float((one(others).argmax(1) == truth).float().mean())

    few = pictures[torch.linspace(0, len(pictures) - 1, 128).long()]
    return model, [few], calibration(model, list(others.split(64)), "the evaluator"), accuracy


def language(tokens):
    """SmolLM2 on Python's own library: some files to calibrate on, others to evaluator."""
    lm = dw.load_lm("embedded:smollm2-135m-instruct")
    text = dw.load_text("embedded:stdlib")

    def sequences(part, number):
        raw = bytes(part.numpy()).decode("utf-8", "replace")
        step = len(raw) // number
        pieces = [lm.tokenizer(raw[at * step : at * step + 4000]).input_ids[:256] for at in range(number)]
        return torch.tensor([piece for piece in pieces if len(piece) == 256])

    learn, evaluator = sequences(text.train, tokens // 256), sequences(text.validation, 12)
    return lm.model, list(learn.split(4)), calibration(lm.model, list(evaluator.split(4)), "the evaluator"), None


main()
