"""deadweight inside Hugging Face: see :mod:`deadweight.integrations.transformers`.

>>> import deadweight.transformers
>>> "deadweight_linear" in deadweight.transformers.register()
True
"""

from deadweight.integrations.transformers import EnergyCallback, StepEnergy, register

__all__ = ["EnergyCallback", "StepEnergy", "register"]
