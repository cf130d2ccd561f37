"""deadweight inside timm: models with shared, cut or narrow MLPs under names of their own.

>>> import timm
>>> import deadweight.timm
>>> timm.list_models("vit_base_*_grouped")
['vit_base_patch16_224_grouped']

The names are ``vit_{tiny,small,base,large}_patch16_224_{grouped,shallow,thin}``, the three models of arXiv 2512.01059
in four sizes. A script that knows nothing of them runs unchanged: ``python -m deadweight.timm train.py --model
vit_base_patch16_224_grouped …``, and so does ``torchrun --nproc-per-node 2 -m deadweight.timm train.py …``.
"""

from __future__ import annotations

import dataclasses
import functools
import runpy
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
from timm.models import build_model_with_cfg, generate_default_cfgs, get_pretrained_cfg, register_model
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from timm.utils import ModelEma, ModelEmaV2, ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from deadweight.errors import DeadweightError, InputError
from deadweight.models.provenance import set_origin
from deadweight.surgery import group_mlps, shallow_mlps

__all__ = ["default_cfgs", "main"]

SIZES: Mapping[str, dict[str, int]] = {
    "tiny": {"embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "large": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}


def _grouped(model: nn.Module) -> nn.Module:
    """adjacent blocks share an MLP, its weights scaled by 1/√2"""
    return group_mlps(model, 2, scale=2**-0.5, inplace=True)


def _shallow(model: nn.Module) -> nn.Module:
    """the whole model is built, then each MLP keeps the first half of its hidden units"""
    return shallow_mlps(model, 0.5, inplace=True)


def _thin(model: nn.Module) -> nn.Module:
    """each MLP is built half as wide"""
    return model


VARIANTS: Mapping[str, Callable[[nn.Module], nn.Module]] = {"grouped": _grouped, "shallow": _shallow, "thin": _thin}


def _configuration(base: str) -> Any:
    """Input size, mean and deviation of `base`; no weights, for none are published."""
    return dataclasses.replace(get_pretrained_cfg(base), url="", hf_hub_id=None, file=None, custom_load=False, tag="")


def _entry(base: str, variant: str, shape: Mapping[str, int]) -> Callable[..., nn.Module]:
    """What timm calls for the name ``{base}_{variant}``."""
    name = f"{base}_{variant}"
    narrow = {"mlp_ratio": 2.0} if variant == "thin" else {}

    def build(**options: Any) -> nn.Module:
        """The cut happens before weights are read, so that a checkpoint of the cut model fits."""
        model: nn.Module = VARIANTS[variant](VisionTransformer(**options))
        plain = {key: value for key, value in options.items() if isinstance(value, (str, int, float, bool, list))}
        set_origin(model, f"timm:{base}", plain)  # with the log of surgeries: a saved one needs no import of this
        return model

    def entry(pretrained: bool = False, **options: Any) -> nn.Module:
        indices = options.pop("out_indices", 3)
        model: nn.Module = build_model_with_cfg(
            build,
            name,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg={"out_indices": indices, "feature_cls": "getter"},
            **{"patch_size": 16, **shape, **narrow, **options},
        )
        return model

    entry.__name__ = entry.__qualname__ = name
    entry.__doc__ = f"{base} of arXiv 2512.01059, {variant}: {VARIANTS[variant].__doc__}."
    return entry


default_cfgs: dict[str, Any] = generate_default_cfgs(
    {f"vit_{size}_patch16_224_{variant}": _configuration(f"vit_{size}_patch16_224")
     for size in SIZES for variant in VARIANTS}
)  # fmt: skip


@contextmanager
def _each_tensor_once(*modules: nn.Module) -> Iterator[None]:
    """While it lasts, the state dicts of `modules` hold a shared tensor under its first name only."""
    hooked: list[Any] = [*modules]
    handles = [module.register_state_dict_post_hook(_without_aliases) for module in hooked]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _without_aliases(module: nn.Module, state: dict[str, Any], prefix: str, metadata: Any) -> None:
    first: dict[int, str] = {}
    named = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    for name, tensor in named:
        if first.setdefault(id(tensor), name) != name:
            state.pop(prefix + name, None)


def _average_once(kind: Any) -> None:
    """timm's moving averages visit a tensor once a name and so decay a shared one twice: let them visit it once."""
    plain = kind.update

    @functools.wraps(plain)
    def update(self: Any, model: nn.Module, *arguments: Any, **options: Any) -> Any:
        with _each_tensor_once(self.ema if kind is ModelEma else self.module, model):
            return plain(self, model, *arguments, **options)

    kind.update = update


def _name_no_cpu_to_ddp() -> None:
    """timm's train.py gives DDP the device of its process, which torch takes for a GPU only: on a CPU give none."""
    plain = DistributedDataParallel.__init__

    @functools.wraps(plain)
    def init(self: Any, module: nn.Module, device_ids: Any = None, *arguments: Any, **options: Any) -> None:
        on_cpu = all(parameter.device.type == "cpu" for parameter in module.parameters())
        plain(self, module, None if on_cpu else device_ids, *arguments, **options)

    DistributedDataParallel.__init__ = init  # type: ignore[method-assign]


def main(arguments: list[str]) -> None:
    """Run a script of somebody else's as ``python SCRIPT …`` would, the names registered."""
    if not arguments or not Path(arguments[0]).is_file():
        raise InputError(
            f"no script {arguments[0]!r}" if arguments else "no script",
            expected="python -m deadweight.timm SCRIPT.py [its options]",
            cure="give the path of timm's train.py, or of any script that calls timm.create_model",
        )
    _name_no_cpu_to_ddp()
    sys.argv = arguments
    sys.path[0] = str(Path(arguments[0]).resolve().parent)
    runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    import deadweight.timm  # registers under the module's own name rather than under __main__

    try:
        deadweight.timm.main(sys.argv[1:])
    except DeadweightError as problem:
        sys.exit(f"error: {problem}")
else:
    for _size, _shape in SIZES.items():
        for _variant in VARIANTS:
            if not timm.is_model(f"vit_{_size}_patch16_224_{_variant}"):
                register_model(_entry(f"vit_{_size}_patch16_224", _variant, _shape))
    for _kind in (ModelEma, ModelEmaV2, ModelEmaV3):
        _average_once(_kind)
