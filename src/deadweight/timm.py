"""deadweight inside timm: see :mod:`deadweight.integrations.timm`, whose importing registers the names.

>>> import timm
>>> import deadweight.timm
>>> timm.list_models("vit_base_*_grouped")
['vit_base_patch16_224_grouped']
"""

from deadweight.integrations.timm import default_cfgs, main, run
from deadweight.loading.timm_names import SIZES, VARIANTS

__all__ = ["SIZES", "VARIANTS", "default_cfgs", "main"]

if __name__ == "__main__":
    run()
