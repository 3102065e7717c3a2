"""What a service can hold at a time: pixels, bytes, places."""

import asyncio
from collections import deque


class Budget:
    """A number of pixels or bytes of which parts are taken and given back; who asks first is served first.

    Args:
        whole: The number.
    """

    def __init__(self, whole: int) -> None:
        self._whole = whole
        self._left = whole
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def take(self, part: int) -> int:
        """Wait until a part is free, and take it.

        Args:
            part: The number; of more than the whole, the whole is taken.

        Returns:
            What was taken, to be given back.

        Raises:
            CancelledError: If the one who waits is called off.
        """
        part = min(part, self._whole)
        if self._waiting or part > self._left:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((part, future))
            try:
                await future
            except asyncio.CancelledError:
                if future.done() and not future.cancelled():
                    self.give(part)  # it was given while the one who waited was called off
                raise
            return part
        self._left -= part
        return part

    def try_take(self, part: int) -> bool:
        """Take a part if it is free."""
        if part > self._left:
            return False
        self._left -= part
        return True

    def give(self, part: int) -> None:
        """Give a part back."""
        self._left += part
        while self._waiting and (self._waiting[0][1].done() or self._waiting[0][0] <= self._left):
            wanted, future = self._waiting.popleft()
            if not future.done():
                self._left -= wanted
                future.set_result(None)
