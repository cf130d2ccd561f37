import math
import sysconfig
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from deadweight.attention import mechanism
from deadweight.errors import InputError
from deadweight.models.gpt2 import GPT2, GPT2Config
from deadweight.training.language import batches, held_out_losses, rate, train_language

pytestmark = pytest.mark.slow

SHAPE = GPT2Config(vocabulary=256, length=32, width=32, depth=1, heads=2)
SETTING = {"steps": 30, "batch": 4, "length": 32, "lr": 3e-3}


def source(name):
    path = Path(sysconfig.get_path("stdlib")) / name
    return torch.from_numpy(np.frombuffer(path.read_bytes(), dtype=np.uint8).copy())


@pytest.fixture(scope="module")
def text():
    return source("argparse.py"), source("optparse.py")


def model(seed=0, name="sdpa"):
    torch.manual_seed(seed)
    return GPT2(SHAPE, lambda _: mechanism(name, SHAPE.width, SHAPE.heads))


class Bigrams(torch.nn.Module):
    """Knows nothing but a table of next tokens: its best loss is a conditional entropy one can compute."""

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.zeros(4, 4))

    def forward(self, tokens, targets=None):
        logits = self.table[tokens]
        if targets is None:
            return logits
        return logits, torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def test_training_lowers_the_held_out_loss_below_what_letter_counts_alone_can_reach(text):
    run = train_language(model(), *text, **{**SETTING, "steps": 150})
    counts = torch.bincount(text[1].long(), minlength=256).double() / len(text[1])
    entropy = -float((counts[counts > 0] * counts[counts > 0].log()).sum())
    assert run.losses[0] == pytest.approx(math.log(256), abs=0.2)
    assert run.held_out < entropy
    assert len(run.losses) == 150


def test_it_is_bit_for_bit_the_same_again_and_another_seed_is_not(text):
    one, two = (train_language(model(), *text, **SETTING, seed=5) for _ in range(2))
    other = train_language(model(), *text, **SETTING, seed=6)
    assert one == two
    assert one.losses != other.losses


def test_the_global_generator_has_no_part_in_it(text):
    start = model().state_dict()
    runs = []
    for noise in (1, 2):
        fresh = model()
        fresh.load_state_dict(start)
        torch.manual_seed(noise)
        runs.append(train_language(fresh, *text, **SETTING))
    assert runs[0] == runs[1]


def test_every_model_sees_the_same_tokens(text):
    seen = {}
    for name in ("eager", "linear"):
        shown = model(name=name)
        seen[name] = []
        shown.register_forward_pre_hook(lambda _, args, kept=seen[name]: kept.append(args[0].clone()))
        train_language(shown, *text, **{**SETTING, "steps": 3})
    assert len(seen["eager"]) >= 3
    for one, two in zip(seen["eager"], seen["linear"], strict=True):
        assert torch.equal(one, two)


def test_a_table_of_bigrams_learns_the_entropy_of_a_known_chain():
    generator = torch.Generator().manual_seed(0)
    chain = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1], [0.1, 0.1, 0.1, 0.7]])
    steps = torch.multinomial(chain[0], 20_000, replacement=True, generator=generator)
    text = steps.cumsum(0) % 4  # the chain is the same seen from every letter
    table = Bigrams()
    run = train_language(table, text[:16_000], text[16_000:], steps=200, batch=16, length=64, lr=0.1, windows=60)
    entropy = -(0.7 * math.log(0.7) + 0.3 * math.log(0.1))
    assert run.held_out == pytest.approx(entropy, abs=0.03)


def test_batches_are_text_and_targets_one_on():
    text = torch.arange(1000)
    drawn = list(batches(text, steps=5, batch=3, length=10, seed=0))
    assert len(drawn) == 5
    for inputs, targets in drawn:
        assert inputs.shape == (3, 10)
        assert torch.equal(targets, inputs + 1)
        assert torch.equal(inputs.diff(dim=1), torch.ones(3, 9, dtype=torch.long))


def test_held_out_windows_are_spread_over_the_text_and_do_not_depend_on_how_many_go_at_once():
    seen = []

    class Listening(Bigrams):
        def forward(self, tokens, targets=None):
            seen.append(tokens)
            return torch.zeros(*tokens.shape, 1000)

    losses = held_out_losses(Listening(), torch.arange(1000), length=10, windows=20)
    starts = torch.cat(seen)[:, 0]
    assert len(losses) == 20
    assert losses == pytest.approx([math.log(1000)] * 20)
    assert starts[0] == 0
    assert starts[-1] == 989
    assert starts.diff().min() >= 10
    assert len(held_out_losses(Listening(), torch.arange(35), length=10)) == 3


def test_the_rate_rises_in_a_line_and_falls_to_a_tenth():
    rates = [rate(step, 100) for step in range(101)]
    assert rates[:10] == pytest.approx([0.1 * n for n in range(1, 11)])
    assert all(one >= two for one, two in pairwise(rates[9:]))
    assert rates[100] == pytest.approx(0.1)
    assert rate(0, 1) == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [({"steps": 0}, "steps 0"), ({"batch": 0}, "batch 0"), ({"length": 0}, "length 0"), ({"length": 10**8}, "text")],
    ids=["steps", "batch", "length", "too long"],
)
def test_what_cannot_be_trained_is_refused(text, change, told):
    with pytest.raises(InputError, match=told):
        train_language(model(), *text, **{**SETTING, **change})


def test_looking_at_the_held_out_loss_on_the_way_changes_nothing(text):
    once, often = (train_language(model(), *text, **{**SETTING, "steps": 12}, checks=checks) for checks in (1, 4))
    assert often.losses == once.losses
    assert often.windows == once.windows
    assert once.curve == ()
    assert [step for step, _ in often.curve] == [3, 6, 9, 12]
    assert all(loss > 0 for _, loss in often.curve)
