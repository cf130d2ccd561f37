"""deadweight as a model of lm-evaluation-harness: see :mod:`deadweight.integrations.lm_eval`."""

from deadweight.integrations.lm_eval import DeadweightLM, main

__all__ = ["DeadweightLM", "main"]

if __name__ == "__main__":
    main()
