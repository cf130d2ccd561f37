"""Few-shot scoring of SmolLM2-135M against lm-evaluation-harness's own model, and against what is possible at all.

The same requests go to HFLM and to ours; the limit is the transformer's body alone, without the vocabulary, over as
many tokens as the requests have distinct prefixes, in one row. The harness shares nothing between items, so its time
is taken on some of them (``--harness-items``) and told for all. ``--k 16 --dtype bfloat16`` measures one case; without
options all six, about five minutes on two cores.
"""

import argparse
import os
import time
import warnings

os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from side_by_side import ratio, say, where

import deadweight as dw
from deadweight.prompting import distinct_tokens

ITEMS = 48
BATCH = 8  # the harness's; on two cores it is no slower than 1


def requests(task, k):
    """The harness's requests for `ITEMS` items after `k` shared demonstrations, and their texts."""
    from lm_eval.api.instance import Instance

    shots = [(item, item.label) for item in task.items[:k]]
    prompts = [task.prompt(shots, item) for item in task.items[k : k + ITEMS]]
    words = [task.answer(label) for label in task.labels]
    return [Instance("loglikelihood", {}, (p, w), n) for n, p in enumerate(prompts) for w in words], prompts, words


def measure(lm, task, k, dtype, items, rounds):
    from lm_eval.models.huggingface import HFLM

    from deadweight.lm_eval import DeadweightLM

    options = {"tokenizer": lm.tokenizer, "batch_size": BATCH, "max_length": lm.max_length}
    theirs, ours = HFLM(lm.model, **options), DeadweightLM(lm.model, **options)
    asked, prompts, words = requests(task, k)
    distinct = distinct_tokens(lm, prompts, words)
    whole = sum(len(theirs.tok_encode("".join(one.args))) - 1 for one in asked)
    ids = torch.randint(lm.model.config.vocab_size, (1, distinct))

    def score():
        return ours.loglikelihood(asked, disable_tqdm=True)

    @torch.inference_mode()
    def body():
        return lm.model.model(input_ids=ids, use_cache=False)

    found, title = {}, f"k={k}, {dtype}, {len(prompts)} items, {distinct} distinct of {whole} tokens"

    found["ours"], _ = score(), body()
    limit = ratio(body, score, rounds=rounds, warmup=0)
    began = time.perf_counter()
    found["theirs"] = theirs.loglikelihood(asked[: items * len(words)], disable_tqdm=True)
    took = ITEMS / items * (time.perf_counter() - began)
    shift = max(abs(a - b) for (a, _), (b, _) in zip(found["theirs"], found["ours"], strict=False))
    print(f"{title}; largest difference {shift:.1e}", flush=True)
    print(
        f"  the harness: {took / limit['theirs']:.1f} × the time of deadweight ({took:.1f} s, {limit['theirs']:.2f} s)"
    )
    say("  share of the limit:", limit, "the rate of the body alone")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--k", type=int, action="append", choices=[4, 16, 32])
    parser.add_argument("--dtype", action="append", choices=["float32", "bfloat16"])
    parser.add_argument("--harness-items", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    try:
        import lm_eval  # noqa: F401 (is it there?)
    except ImportError:
        print("lm-evaluation-harness is not installed: pip install 'deadweight[lm-eval]'")
        return
    warnings.filterwarnings("ignore")
    torch.set_num_threads(2)
    task = dw.load_task("embedded:sentiment")
    for dtype in chosen.dtype or ["float32", "bfloat16"]:
        print(where(dtype))
        lm = dw.load_lm("embedded:smollm2-135m-instruct", dtype=dtype, device="cpu")
        for k in chosen.k or [4, 16, 32]:
            measure(lm, task, k, dtype, chosen.harness_items, chosen.rounds)


if __name__ == "__main__":
    main()
