"""Models, probes and settings that do what most do not: the numbers stay right, or the profile says why not."""

import numpy as np
import pytest
import torch
from torch import nn

from deadweight.anatomy import anatomy
from deadweight.errors import InputError
from deadweight.probes import profile, scrambling_fit
from deadweight.probes.kinds import ImageProbe
from deadweight.probes.probe import PROBES
from deadweight.probes.scrambling_fit import r2_of
from deadweight.probes.states.scrambling import MIXED
from deadweight.probes.states.scrambling_sums import ScramblingSums

BLOCKS, WIDTH, PATCHES = 3, 24, 16


class Block(nn.Module):
    """Adds to the stream, in place or not."""

    def __init__(self, in_place=False):
        super().__init__()
        self.norm, self.layer, self.in_place = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, WIDTH), in_place

    def forward(self, x):
        change = self.layer(self.norm(x)).tanh()
        if not self.in_place:
            return x + change
        x += change
        return x


class Model(nn.Module):
    """A vision model of a user's own, with what is asked for done in an unusual way."""

    def __init__(self, *, in_place=False, order=range(BLOCKS), rounds=1, norms="last", positions_in_place=False):
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(12, WIDTH)
        self.positions = nn.Parameter(torch.randn(1, PATCHES, WIDTH))
        self.blocks = nn.ModuleList([Block(in_place) for _ in range(BLOCKS)])
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 5)
        self.order, self.rounds, self.norms, self.positions_in_place = order, rounds, norms, positions_in_place

    def forward(self, x):
        x = self.embed(nn.functional.unfold(x, 4, stride=4).mT[..., :12])
        if self.positions_in_place:
            x += self.positions
        else:
            x = x + self.positions
        kept = []
        for _ in range(self.rounds):
            for index in self.order:
                x = self.blocks[index](x)
                kept.append(x)
        if self.norms == "all":
            x = [self.norm(one) for one in kept][-1]
        elif self.norms == "last":
            x = self.norm(x)
        return self.head(x.mean(1))


def parts(model):
    return anatomy(model, paths={"blocks": "blocks", "embedding": "embed", "positions": "positions", "norm": "norm",
                                 "head": "head"})  # fmt: skip


def table(model, *batches, **more):
    return profile(parts(model.eval()), batches, **more).table().drop(columns="layer")


@pytest.fixture(scope="module")
def pictures(zoo):
    return zoo.images()[0]


def same(found, expected, **more):
    np.testing.assert_allclose(found.to_numpy(float), expected.to_numpy(float), rtol=1e-6, atol=1e-9, **more)


@pytest.mark.parametrize("unusual", [{"in_place": True}, {"norms": "all"}, {"positions_in_place": True}], ids=str)
def test_what_a_model_does_on_the_way_does_not_show(pictures, unusual):
    expected = table(Model(), pictures[:20], pictures[20:])
    assert expected["influence"][1:-1].min() > 0.01
    assert expected["r2_self"].notna().all()
    same(table(Model(**unusual), pictures[:20], pictures[20:]), expected)


def test_blocks_that_run_twice_are_refused(pictures):
    with pytest.raises(InputError, match="the input of the first block was seen twice"):
        table(Model(rounds=2), pictures)
    shared = Model()
    shared.blocks = nn.ModuleList([shared.blocks[0]] * BLOCKS)
    with pytest.raises(InputError, match="twice"):
        table(shared, pictures)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1)], ids=str)
def test_low_precision_rows_keep_their_own_memory(pictures, order):
    """The rows' order in time need not be their number's."""
    columns = ["influence", "centered_similarity", "raw_similarity"]
    full = table(Model(order=order, norms="none"), pictures, pictures)[columns]
    low = table(Model(order=order, norms="none").bfloat16(), pictures, pictures)[columns]
    np.testing.assert_allclose(low, full, atol=0.02)
    assert low["influence"][1:-1].min() > 0.02


def test_a_row_that_repeats_has_nothing_of_blocks(pictures):
    found = table(Model(norms="none"), pictures)
    assert np.isnan(found["influence"].iloc[-1])
    assert found["r2_self"].iloc[-1] == found["r2_self"].iloc[-2]
    assert found["raw_similarity"].iloc[-1] == found["raw_similarity"].iloc[-2]


@pytest.fixture
def probe(monkeypatch):
    """probe(name, measure, …) registers a probe for the test's time."""

    def add(name, measure, **more):
        monkeypatch.setitem(PROBES._entries, name, ImageProbe(name, "a test's", measure, **more))

    return add


def test_a_probe_may_give_a_view(pictures, probe):
    probe("first", lambda layer, before: {"first": layer.centred[:, 0, 0]})
    probe("copied", lambda layer, before: {"copied": layer.centred[:, 0, 0].clone()})
    found = table(Model().double(), pictures.double(), probes=["first", "copied"])
    np.testing.assert_array_equal(found["first"], found["copied"])


def test_a_probe_of_the_input_has_none_at_a_repeated_row(pictures, probe):
    probe("gain", lambda layer, before: {} if before is None else {"gain": layer.norms.mean(1) - before.norms.mean(1)})
    for norms in ("last", "none"):
        found = table(Model(norms=norms), pictures, probes=["gain"])["gain"]
        assert list(found.isna()) == [True, False, False, False, True]


def test_no_name_of_a_measure_is_taken(pictures, probe):
    probe("token_norm", lambda layer, before: {"token_norm": layer.norms.mean(1)})
    assert table(Model(), pictures, probes=["token_norm"])["token_norm"].notna().all()
    broken = pictures.clone()
    broken[1] = float("nan")
    with pytest.raises(InputError, match="holds NaN"):
        table(Model(), broken, probes=["token_norm"])


def test_a_probe_of_attention_says_why_a_language_model_has_none(zoo, probe):
    def peak(layer, before):
        return {} if layer.attention is None else {"peak": layer.attention.amax((1, 2))}

    probe("peak", peak, attention=True)
    found = profile(zoo.build("gpt2"), [torch.randint(0, 50, (2, 6))], probes=["peak"])
    assert found.table()["peak"].isna().all()
    assert any(note.startswith("peak: ") and "language model" in note for note in found.notes)


def test_states_of_images_of_several_sizes_merge(zoo):
    model = zoo.build("timm_dynamic")
    one, two = (
        profile(model, [torch.randn(4, 3, 16, 16), torch.randn(4, 3, 24, 24)], probes=["isi"]) for _ in range(2)
    )
    both = one.merge(two)
    assert both.scrambling.tokens == MIXED
    assert both.scrambling.images.sum() == 16


@pytest.mark.parametrize("images", [5, 11, 13, 20])
def test_an_input_all_images_share_is_no_input(images, monkeypatch):
    """What rounding leaves of its scatter may have either sign."""
    generator = torch.Generator().manual_seed(images)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tokens, cls, sums = draw(images, 5, WIDTH), draw(1, WIDTH).expand(images, WIDTH), ScramblingSums()
    sums.start(tokens + 0.1 * draw(images, 5, WIDTH), torch.arange(images).numpy() % 2 == 0)
    sums.row(0, tokens - tokens.mean(1, keepdim=True), tokens.mean(1), cls)
    sums.finish()
    state = sums.done()
    quick = r2_of(state, 0)
    monkeypatch.setattr(scrambling_fit, "_factor", lambda *_: None)
    assert quick.everything == pytest.approx(r2_of(state, 0).everything, rel=1e-6)


def test_rounding_of_a_constant_takes_no_place_of_what_varies():
    """As many rows of the factor as there are images: what rounding left of inputs all images share must have none."""
    images, generator = 5, np.random.default_rng(0)
    vectors = generator.standard_normal((images, WIDTH)) @ generator.standard_normal((WIDTH, WIDTH))
    vectors -= vectors.mean(0)
    between = np.zeros((2 * WIDTH, 2 * WIDTH))
    between[:WIDTH, :WIDTH] = vectors.T @ vectors
    between[WIDTH:, WIDTH:] = 1e-18 * np.eye(WIDTH)
    factor = scrambling_fit._factor(between, images, np.concatenate([np.zeros(WIDTH), np.ones(WIDTH)]))
    np.testing.assert_allclose(factor[:WIDTH] @ factor[:WIDTH].T, vectors.T @ vectors, atol=1e-10)
    assert not factor[WIDTH:].any()


def test_where_tokens_stop_being_patches_is_said_once(pictures):
    class Half(nn.Module):
        def forward(self, x):
            return x[:, ::2] * 1.0

    model = Model()
    model.blocks[0] = Half()
    found = profile(parts(model.eval()), [pictures], probes=["isi"])
    said = [note for note in found.notes if "not the patches any more" in note]
    assert said == [
        "r2_self, r2_all, isi: from the output of block 1 of 3 (blocks.0) on, tokens are not the patches any more"
    ]


def test_tokens_that_never_change_predict_nothing(zoo):
    model = zoo.build("timm_cls")
    with torch.no_grad():
        model.norm.weight.zero_()
    found = profile(model, [zoo.images(20)[0]], probes=["r2_self", "r2_all"]).table()
    assert found["r2_all"].iloc[-1] == pytest.approx(found["r2_self"].iloc[-1], abs=1e-9)


def test_another_default_device_does_not_matter(zoo):
    x, y = zoo.images(12)
    model = zoo.build("timm_cls")
    expected = profile(model, [(x, y)]).table()
    with torch.device("meta"):
        found = profile(model, [(x, y)]).table()
    np.testing.assert_array_equal(found.to_numpy(float), expected.to_numpy(float))
