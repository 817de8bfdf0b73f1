"""Requests to servers, tried again with growing pauses where the network or the server failed and not the request.

What is missing, refused or wrong stays so a second later: nothing of that is asked for twice. A library that tries
again by itself (botocore does, once) does so within each of these tries.
"""

import logging
from collections.abc import Callable
from time import sleep
from typing import Any, TypeVar

PAUSES_S = (0.5, 1.0, 2.0)
"""Seconds before each further try."""
_STATUSES = (408, 429, 500, 502, 503, 504)
# Classes of aiohttp, httpx, requests, botocore and Python itself, none of which is imported for their sake.
_NETWORK = {
    "ChunkedEncodingError",
    "ClientConnectionError",
    "ClientPayloadError",
    "ConnectionError",
    "HTTPClientError",
    "NetworkError",
    "RemoteProtocolError",
    "Timeout",
    "TimeoutError",
    "TimeoutException",
}
_FOR_GOOD = {"CertificateError", "ClientSSLError", "OfflineModeIsEnabled", "SSLError"}

logger = logging.getLogger(__name__)
T = TypeVar("T")


def persistently(request: Callable[[], T]) -> T:
    """What ``request`` gives, which may be made any number of times; its last error where no try succeeds."""
    for pause in PAUSES_S:
        try:
            return request()
        except Exception as error:
            if not may_pass(error):
                raise
            logger.info("trying again in %s s: %s", pause, type(error).__name__)
        sleep(pause)
    return request()


def may_pass(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later."""
    # Libraries say "not found" whatever went wrong, and give the reason as its cause.
    told = [error, *filter(None, [error.__cause__])]
    if statuses := [status for one in told if (status := status_of(one)) is not None]:
        return statuses[-1] in _STATUSES
    names = {kind.__name__ for one in told for kind in type(one).__mro__}
    return bool(names & _NETWORK) and not names & _FOR_GOOD


def status_of(error: BaseException | None) -> int | None:
    """The status of the answer that ``error`` tells of, where there was one."""
    answer: Any = getattr(error, "response", None)
    if isinstance(answer, dict):  # as botocore has it
        return answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return getattr(error, "status", None) or getattr(answer, "status_code", None)
