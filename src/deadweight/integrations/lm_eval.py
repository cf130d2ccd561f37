"""deadweight's scorer inside lm-evaluation-harness: the model ``deadweight``.

``python -m deadweight.lm_eval --model deadweight --model_args pretrained=hf:FOLDER --tasks …`` is the harness's own
command line with that model registered; importing this module registers it for ``lm_eval.simple_evaluate``.

All but the computation is the harness's ``HFLM``: tokenisation, truncation, chat templates, generation. What is
computed is every distinct prefix of the requests once, instead of every request whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from deadweight.errors import InputError
from deadweight.loading import MODEL_SOURCES, load_lm
from deadweight.prompting.encoding import Query
from deadweight.prompting.scorer import token_scores

try:
    from lm_eval.api.registry import register_model
    from lm_eval.models.huggingface import HFLM
except ImportError as problem:
    raise ImportError(
        "deadweight.lm_eval works inside lm-evaluation-harness: pip install 'deadweight[lm-eval]'"
    ) from problem

Request = tuple[tuple[str, str], list[int], list[int]]


@register_model("deadweight")
class DeadweightLM(HFLM):  # type: ignore[misc]  # the harness is untyped to us
    """HFLM whose log-likelihoods come from :func:`deadweight.prompting.scorer.token_scores`.

    Parameters
    ----------
    pretrained:
        A source of :func:`deadweight.load_lm` (``hf:FOLDER``, ``gguf:PATH``, ``file:FOLDER``,
        ``embedded:smollm2-135m-instruct``), or whatever HFLM takes.
    dtype, device:
        As :func:`deadweight.load_lm` takes them for its sources, as HFLM does otherwise.
    memory:
        Bytes the scorer may use beside the weights; 1 GiB when not given.
    options:
        HFLM's. ``batch_size`` concerns generation alone: log-likelihoods are packed within `memory`.
    """

    batch_size_per_gpu: int

    def __init__(
        self,
        pretrained: Any,
        *,
        dtype: Any = "auto",
        device: str | None = None,
        memory: int | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> None:
        self._memory = memory
        if isinstance(pretrained, str) and pretrained.partition(":")[0] in MODEL_SOURCES:
            lm = load_lm(
                pretrained,
                dtype="float32" if dtype == "auto" else dtype,
                device=device,
                trust_remote_code=trust_remote_code,
            )
            super().__init__(lm.model, tokenizer=lm.tokenizer, **{"max_length": lm.max_length, **options})
        else:
            options["trust_remote_code"] = trust_remote_code
            super().__init__(pretrained, dtype=dtype, **({"device": device} if device else {}), **options)
        if self.backend != "causal":
            raise InputError(f"a model of kind {self.backend}", expected="a causal language model", cure="--model hf")

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        """(log-likelihood, whether greedy decoding would write it) of every continuation, in the order of requests."""
        queries = [self._query(number, context, answer) for number, (_, context, answer) in enumerate(requests)]
        scores, greedy = token_scores(self.model, queries, memory=self._memory, greedy=True)
        found = [(float(part.sum()), best) for part, best in zip(scores, greedy, strict=True)]
        for (text, _, _), answer in zip(requests, found, strict=True):
            if text is not None:
                self.cache_hook.add_partial("loglikelihood", text, answer)
        return found

    def _query(self, number: int, context: list[int], answer: list[int]) -> Query:
        """What is beyond the context length goes from the left, as in the harness."""
        if not 0 < len(answer) <= self.max_length or not context:
            raise InputError(
                f"request {number} with {len(context)} tokens of context and {len(answer)} to score",
                expected=f"some context, and 1 to {self.max_length} tokens to score",
            )
        tokens = (context + answer)[-(self.max_length + 1) :]
        return Query(number, 0, tuple(tokens), len(tokens) - len(answer))

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> list[float]:
        """As HFLM's, the windows of all requests in one batch: packing needs no smaller ones."""
        was, self.batch_size_per_gpu = self.batch_size_per_gpu, 1 << 30
        try:
            found: list[float] = super().loglikelihood_rolling(requests, disable_tqdm)
        finally:
            self.batch_size_per_gpu = was
        return found


def main() -> None:
    """The harness's command line."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
