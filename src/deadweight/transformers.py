"""deadweight inside Hugging Face: see :mod:`deadweight.integrations.transformers`.

>>> import deadweight.transformers
>>> deadweight.transformers.register()[0]
'deadweight_eager'
"""

from deadweight.integrations.transformers import EnergyCallback, StepEnergy, register

__all__ = ["EnergyCallback", "StepEnergy", "register"]
