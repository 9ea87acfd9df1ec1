"""A clock for what must not take long: it stands still while the machine has no time for us."""

import threading
import time

TICK_S = 0.01


class _Clock:
    def __init__(self) -> None:
        self._ticks = 0
        self._ticked = threading.Condition()
        threading.Thread(target=self._tick, name="fair-time", daemon=True).start()

    def _tick(self) -> None:
        while True:
            # Whoever has to wait for a processor, this thread has to, too.
            time.sleep(TICK_S)
            with self._ticked:
                self._ticks += 1
                self._ticked.notify_all()

    def now(self) -> float:
        with self._ticked:
            before = self._ticks
            self._ticked.wait_for(lambda: self._ticks > before)
            return self._ticks * TICK_S


_clock: list[_Clock] = []


def fair_time() -> float:
    """Seconds, of which differences count; at most those that `time.monotonic` tells."""
    if not _clock:
        _clock.append(_Clock())
    return _clock[0].now()
