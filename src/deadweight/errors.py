"""The errors deadweight raises on purpose: what was given, what was expected, what to do.

Every error carries the exit code the command line ends with (`docs/reference/exit-codes.md`),
so that a script and a person are told the same thing.
"""


class DeadweightError(Exception):
    """Something a person can put right.

    Parameters
    ----------
    given:
        What was found, naming the value, e.g. ``"group size 0"``.
    expected:
        What would have been accepted.
    cure:
        What to do about it.

    Examples
    --------
    >>> print(DeadweightError("heads = 5", expected="a divisor of 32", cure="use 4 or 8"))
    heads = 5
      expected: a divisor of 32
      what to do: use 4 or 8
    """

    exit_code = 1

    def __init__(self, given: str, *, expected: str = "", cure: str = "") -> None:
        self.given: str = given
        self.expected: str = expected
        self.cure: str = cure
        parts = [given]
        if expected:
            parts.append(f"expected: {expected}")
        if cure:
            parts.append(f"what to do: {cure}")
        super().__init__("\n  ".join(parts))

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.given, self.expected, self.cure)


def _rebuild(kind: type[DeadweightError], given: str, expected: str, cure: str) -> DeadweightError:
    return kind(given, expected=expected, cure=cure)


class InputError(DeadweightError, ValueError):
    """An argument, option or file that cannot be used as it is (exit code 2).

    >>> try:
    ...     raise InputError("k = 0", expected="at least one")
    ... except DeadweightError as problem:
    ...     problem.exit_code
    2
    """

    exit_code = 2


class SourceError(InputError):
    """A model, data or task source that cannot be read (exit code 2).

    >>> import deadweight as dw
    >>> try:
    ...     dw.load("tim:vit")
    ... except dw.SourceError as problem:
    ...     print(problem.given)
    unknown kind of model source 'tim' in 'tim:vit'
    """


class SurgeryError(InputError):
    """A surgery refused; the message names the block (exit code 2).

    >>> import deadweight as dw
    >>> try:
    ...     dw.drop_blocks(dw.load("embedded:digits-vit"), [9])
    ... except dw.SurgeryError as problem:
    ...     print(problem.exit_code)
    2
    """


class MachineError(DeadweightError, OSError):
    """The machine says no: a full disk, a missing permission, a missing kernel (exit code 3).

    >>> MachineError("the disk is full").exit_code
    3
    """

    exit_code = 3


class CellFailed(DeadweightError, RuntimeError):
    """A cell that could not be finished, now or after its retries (exit code 1).

    >>> str(CellFailed("the loss is not a number")).splitlines()[0]
    'the loss is not a number'
    """
