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

import functools
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from timm.utils import ModelEma, ModelEmaV2, ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from deadweight.errors import DeadweightError, InputError
from deadweight.loading.timm_names import default_cfgs, register_names

__all__ = ["default_cfgs", "main"]


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


def run() -> None:
    """The command line of ``python -m deadweight.timm``."""
    try:
        main(sys.argv[1:])
    except DeadweightError as problem:
        sys.exit(f"error: {problem}")


register_names()
for _kind in (ModelEma, ModelEmaV2, ModelEmaV3):
    _average_once(_kind)
