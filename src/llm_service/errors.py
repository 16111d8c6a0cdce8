"""The one tree of errors. A class name is the code on the wire; what is not in this tree is a bug.

ServiceError
├── SettingsInvalid               the process refuses to start, exit code 2
├── RequestError                  an HTTP answer: `status`, `message`, `context`
│   ├── 400  InvalidLimitResults InvalidStatusFilter InvalidUserID InvalidCursor InvalidTimeRange
│   │        ConflictingFilters EmptyJobIdsList InvalidJobIDs MalformedBody
│   ├── 401  InvalidAPISecret
│   ├── 404  JobNotFound RouteNotFound · 405 MethodNotAllowed · 413 BodyTooLarge · 415 UnsupportedMediaType
│   ├── 409  JobNotCancellable JobNotRetryable WebhookNotRedeliverable
│   ├── 422  ValidationError UnknownWorkflow InvalidInputData UnsafeWebhookURL IdempotencyKeyReused
│   └── 429  TooManyRequests · 503 ServiceUnavailable · 500 InternalError
└── JobFailure                    why a job failed: its `error_code` is the class name
    └── ModelUnavailable ModelRejected ModelTimeout OutputValidationError JobTimeout WorkerLost
        WorkflowError BudgetExceeded
"""

from collections.abc import Sequence
from typing import Any, ClassVar

ECHO_LIMIT = 100
"""Characters of a caller's value that an error repeats."""


class ServiceError(Exception):
    """The root. `message` says what was wrong and what is allowed; it never holds a secret."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class SettingsInvalid(ServiceError):
    """A setting is missing or wrong; the message names the variable."""


# --- answers over HTTP ------------------------------------------------------------------------------------


class RequestError(ServiceError):
    status: ClassVar[int] = 500

    def __init__(self, message: str, **context: Any) -> None:
        super().__init__(message)
        self.context = {name: _echo(value) for name, value in context.items()}
        self.headers: dict[str, str] = {}

    @property
    def code(self) -> str:
        return type(self).__name__


def _echo(value: Any) -> Any:
    return value[:ECHO_LIMIT] if isinstance(value, str) else value


class InvalidLimitResults(RequestError):
    status = 400

    def __init__(self, message: str, text: str) -> None:
        super().__init__(message, limit_results=text, valid_values=["1-500", "Today", "7 Days", "30 Days"])


class InvalidStatusFilter(RequestError):
    status = 400


class InvalidUserID(RequestError):
    status = 400


class InvalidCursor(RequestError):
    status = 400


class InvalidTimeRange(RequestError):
    status = 400


class ConflictingFilters(RequestError):
    status = 400


class EmptyJobIdsList(RequestError):
    status = 400


class InvalidJobIDs(RequestError):
    status = 400


class MalformedBody(RequestError):
    status = 400


class InvalidAPISecret(RequestError):
    status = 401

    def __init__(self) -> None:
        super().__init__("The header X-API-Secret is missing or wrong.")


class JobNotFound(RequestError):
    status = 404

    def __init__(self, job_id: object) -> None:
        super().__init__("There is no job with this id.", job_id=str(job_id))


class RouteNotFound(RequestError):
    status = 404


class MethodNotAllowed(RequestError):
    status = 405


class BodyTooLarge(RequestError):
    status = 413

    def __init__(self) -> None:
        super().__init__("The body is larger than 1 MiB (1,048,576 bytes), the most that is accepted.")


class UnsupportedMediaType(RequestError):
    status = 415


class JobNotCancellable(RequestError):
    status = 409


class JobNotRetryable(RequestError):
    status = 409


class WebhookNotRedeliverable(RequestError):
    status = 409


class ValidationError(RequestError):
    """`errors` lists each place and what is wrong there: `[{"loc": ["body", "username"], "msg": ...}]`."""

    status = 422

    def __init__(self, message: str, loc: Sequence[str | int]) -> None:
        where = [_echo(part) for part in loc]
        text = f"{'.'.join(str(part) for part in where)}: {message}"
        super().__init__(text, errors=[{"loc": where, "msg": message}])


class InvalidInputData(ValidationError):
    """`input_data` breaks the input schema of its workflow."""


class UnknownWorkflow(RequestError):
    status = 422


class UnsafeWebhookURL(RequestError):
    status = 422


class IdempotencyKeyReused(RequestError):
    status = 422


class RetryableRequestError(RequestError):
    """Nothing was stored; the same request may succeed after `Retry-After` seconds."""

    def __init__(self, message: str, *, retry_after_s: int = 1, **context: Any) -> None:
        super().__init__(message, **context)
        self.headers = {"Retry-After": str(retry_after_s)}


class TooManyRequests(RetryableRequestError):
    status = 429


class ServiceUnavailable(RetryableRequestError):
    """PostgreSQL is away, in any of the ways in which it can be: see absence.py."""

    status = 503

    def __init__(self) -> None:
        super().__init__("The database is unavailable; try again shortly.", retry_after_s=2)


class InternalError(RequestError):
    """A bug. The request id leads to the traceback in the log."""

    status = 500

    def __init__(self, request_id: str) -> None:
        super().__init__(
            "Something went wrong on our side; the request id leads to it.", request_id=request_id
        )


# --- why a job failed -------------------------------------------------------------------------------------


class JobFailure(ServiceError):
    """Ends the job as failed. The message helps the caller and repeats neither secret nor prompt."""

    @property
    def code(self) -> str:
        return type(self).__name__


class ModelUnavailable(JobFailure):
    """The provider could not be reached or kept failing (5xx, resets, answers that are no answers)."""


class ModelRejected(JobFailure):
    """The provider refused the request (4xx): asking again would be refused again."""


class ModelTimeout(JobFailure):
    """A model call did not end within its total deadline."""


class OutputValidationError(JobFailure):
    """The model's answer broke the schema, and so did its repair."""


class JobTimeout(JobFailure):
    """The job ran longer than JOB_TIMEOUT."""


class WorkerLost(JobFailure):
    """The workers that ran the job died, as often as MAX_ATTEMPTS allows."""


class WorkflowError(JobFailure):
    """The workflow itself raised."""


class BudgetExceeded(JobFailure):
    """The job wanted another call after it had used up its calls, tokens or cost."""
