"""The one retry policy: which errors are worth asking again, after how long, how often."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeAlias

import tenacity

from aim_downloader.errors import DownloadError, ThrottledError

OnRetry: TypeAlias = Callable[[BaseException, int, float], None]
"""Hears of the error, the number of tries so far, and the seconds until the next."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with jitter; a server that names a delay is believed. Times in seconds.

    ``attempts`` counts tries in a row that brought nothing: callers begin anew after progress.
    """

    attempts: int = 8
    first_delay: float = 0.5
    longest_delay: float = 30.0
    longest_patience: float = 600.0

    def delay(self, attempt: int, error: BaseException | None) -> float:
        """Seconds to wait after failed try number ``attempt`` (from 1)."""
        backoff: float = min(self.longest_delay, self.first_delay * 2 ** (attempt - 1))
        backoff *= random.uniform(0.5, 1.0)
        if isinstance(error, ThrottledError) and error.retry_after is not None:
            # Everybody who was told "5 s" must not come back in the same millisecond.
            asked = min(error.retry_after, self.longest_patience) * random.uniform(1.0, 1.1)
            return max(asked, backoff)
        return backoff

    def retrying(self, sleep: Callable[[float], None], on_retry: OnRetry) -> tenacity.Retrying:
        """Tries for a thread. ``sleep`` may raise to end them; ``on_retry`` hears of each wait."""
        return tenacity.Retrying(
            sleep=sleep,
            retry=tenacity.retry_if_exception(is_retryable),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=self._wait,
            before_sleep=_reporting(on_retry),
            reraise=True,
        )

    def async_retrying(
        self,
        sleep: Callable[[float], Awaitable[None]],
        on_retry: OnRetry,
    ) -> tenacity.AsyncRetrying:
        """The same tries for the event loop."""
        return tenacity.AsyncRetrying(
            sleep=sleep,
            retry=tenacity.retry_if_exception(is_retryable),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=self._wait,
            before_sleep=_reporting(on_retry),
            reraise=True,
        )

    def _wait(self, state: tenacity.RetryCallState) -> float:
        return self.delay(state.attempt_number, _error(state))


def is_retryable(error: BaseException) -> bool:
    """Whether the same protocol may be asked again after this error."""
    return isinstance(error, DownloadError) and error.retryable


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _reporting(
    on_retry: OnRetry,
) -> Callable[[tenacity.RetryCallState], None]:
    def report(state: tenacity.RetryCallState) -> None:
        error = _error(state)
        if error is not None and state.next_action is not None:
            on_retry(error, state.attempt_number, state.next_action.sleep)

    return report
