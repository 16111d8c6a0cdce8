"""What the queue page answers besides the errors of the API; a browser's script gets them in the same envelope."""

from llm_service.errors import RequestError, RetryableRequestError


class SessionNeeded(RequestError):
    status = 401

    def __init__(self) -> None:
        super().__init__("You are not logged in, or were away too long; log in and come back.")


class RequestRefused(RequestError):
    """A request that another site may have caused, or that comes over a line others can listen on."""

    status = 403


class ReaderCannotAct(RequestRefused):
    """Something that changes the queue, asked for in a session that was opened with the reader's password."""

    def __init__(self) -> None:
        super().__init__(
            "You are logged in for reading and can change nothing. Sign out, and log in with the admin password."
        )


class MatchesChanged(RequestError):
    """More jobs match than the admin was shown."""

    status = 409


class TooManyMatches(RequestError):
    status = 422


class TooManyTries(RetryableRequestError):
    """Wrong passwords came from this address; the next try is looked at after `Retry-After` seconds."""

    status = 429


class PollingTooFast(RetryableRequestError):
    """One view was looked at more often than every 2 s for a while; the page comes again after `Retry-After`."""

    status = 429

    def __init__(self, *, retry_after_s: int) -> None:
        super().__init__(
            "This view is looked at too often; every 2 s is enough.", retry_after_s=retry_after_s
        )
