"""Every error that Understudy raises on purpose, in one tree.

Does not know who shows them: the command line prints `str(error)` and exits with `exit_code`,
the service answers with `status`, both without a case per class.

    UnderstudyError
    ├── InputError              what was asked for cannot be done as asked
    │   ├── NotFound            a persona, version, job, run or model name that does not exist
    │   ├── PersonaInvalid      a persona file that does not parse or validate (file, line, field)
    │   ├── DatasetInvalid      empty, leaking or malformed training data
    │   ├── Conflict            the name exists already with other content
    │   ├── KeyMissing          a provider wants a key, and its variable is not set
    │   └── ContextExceeded     a prompt longer than the model's window
    ├── ModelError              a model could not answer
    │   ├── ModelUnavailable    it is not there or cannot be opened: asking again will not help
    │   │   └── KeyRefused      the provider does not accept the key, or the account cannot pay
    │   ├── RequestRefused      the provider refuses this request as it is: asking again will not help
    │   ├── RateLimited         it is asked too often: asking again helps after `retry_after` seconds
    │   ├── ModelTimeout        it took too long: asking again may help
    │   ├── AdapterInvalid      adapter files that are missing, corrupt or made for another base
    │   └── AnswerRejected      it answered, but the answer fails the checks (reasons)
    ├── BudgetReached           what may be spent on a run is spent: what is finished is kept
    ├── TrainingFailed          a training job ended in error
    └── StorageError            home not writable, disk full, database damaged
        └── ConnectionLost      the database does not answer: asking again may help
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial


class UnderstudyError(Exception):
    """Say what happened, with the value, and what to do about it."""

    exit_code = 1
    status = 500
    code = "internal_error"

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()


class InputError(UnderstudyError):
    """Refuse a request that cannot be done as asked; nothing was changed."""

    exit_code = 2
    status = 400
    code = "invalid_request"


class NotFound(InputError):
    """Name something that does not exist, and what does."""

    status = 404
    code = "not_found"


class PersonaInvalid(InputError):
    """Point at the file, line and field of a persona that does not parse or validate."""

    code = "persona_invalid"


class DatasetInvalid(InputError):
    """Refuse training data that is empty, leaks into the evaluation data, or is malformed."""

    code = "dataset_invalid"


class Conflict(InputError):
    """Refuse a name that exists already with other content."""

    status = 409
    code = "conflict"


class ContextExceeded(InputError):
    """Refuse a prompt that does not fit the model's context window."""

    code = "context_length_exceeded"


class KeyMissing(InputError):
    """Name the variable that a provider's key is read from, and that is not set."""

    code = "key_missing"


class ModelError(UnderstudyError):
    """Report that a model could not answer."""

    status = 503
    code = "model_error"


class ModelUnavailable(ModelError):
    """Report a model that is not there; asking again will not help."""

    code = "model_unavailable"


class KeyRefused(ModelUnavailable):
    """Report a key that the provider does not accept, or an account that cannot pay."""

    code = "key_refused"


class RequestRefused(ModelError):
    """Report a request that the provider refuses as it is; asking again will not help."""

    code = "request_refused"


class RateLimited(ModelError):
    """Report that a provider is asked too often; `retry_after` is its own word on when to ask again (s)."""

    status = 429
    code = "rate_limited"

    def __init__(self, message: str, remedy: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message, remedy)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[partial[RateLimited], tuple[str, str]]:
        return partial(type(self), retry_after=self.retry_after), (self.message, self.remedy)


class ModelTimeout(ModelError):
    """Report an answer that did not come in time; asking again may help."""

    status = 504
    code = "model_timeout"


class AdapterInvalid(ModelError):
    """Report adapter files that are missing, corrupt or made for another base model."""

    code = "adapter_invalid"


class AnswerRejected(ModelError):
    """Report an answer that failed the checks, with each reason."""

    code = "answer_rejected"

    def __init__(self, message: str, reasons: Sequence[str]) -> None:
        super().__init__(message, "; ".join(reasons))
        self.reasons = tuple(reasons)

    def __reduce__(self) -> tuple[type[AnswerRejected], tuple[str, tuple[str, ...]]]:
        return type(self), (self.message, self.reasons)


class BudgetReached(UnderstudyError):
    """Report that the next call could cost more than is left of the budget."""

    status = 402
    code = "budget_reached"


class TrainingFailed(UnderstudyError):
    """Report a training job that ended in error, with the reason it gave."""

    code = "training_failed"


class StorageError(UnderstudyError):
    """Report a home that cannot be written, a full disk or a database that does not answer."""

    status = 503
    code = "storage_error"


class ConnectionLost(StorageError):
    """Report a database that cannot be reached or went away; asking again may help."""

    code = "connection_lost"


PERMANENT = (InputError, ModelUnavailable, RequestRefused, AdapterInvalid)
"""What asking again will not mend."""
