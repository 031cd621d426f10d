"""What the daemon has of a stream, asked while the source sends: without waiting, and aware of daemons that restart."""

from __future__ import annotations

import time
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import recv_monitor_message

from nuclr_stream.errors import WireError
from nuclr_stream.sockets import KeyFile, Socket, connect, disconnect, give, take
from nuclr_stream.wire import MAX_MESSAGE_BYTES, ReceivedReply, ReceivedRequest, decode, encode

ASK_EVERY_S = 0.5
ASK_AGAIN_S = 0.1
"""While the line was broken the daemon is asked more often: nothing is sent before it has answered."""
GIVE_UP_S = 5.0
"""A daemon that takes data but gives no answer for so long is sent what waits: data in time are worth more."""


@dataclass(frozen=True)
class Resume:
    """Send again from message `seq` on, or everything where it is None: the daemon knows nothing of the stream."""

    seq: int | None


class Acknowledgement:
    """Follows one stream at a daemon. `unsure` while it is not known what of the messages sent has arrived.

    A source that goes on sending then would leave a gap before what it sends again. `received` is the last answer.
    """

    def __init__(self, stream: str, epoch: int, *, data: Socket, query: str, key: KeyFile = None) -> None:
        self.stream, self.epoch = stream, epoch
        self.unsure = False
        self.received: ReceivedReply | None = None
        self._socket = connect(
            zmq.DEALER, query, "query endpoint", max_bytes=MAX_MESSAGE_BYTES, options={zmq.IMMEDIATE: 1}, key=key
        )
        self._monitor: Socket = data.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._data = data
        self._asked = 0
        self._asked_s = 0.0
        self._next_seq: int | None = None  # of the answer before, while unsure
        self._back_s: float | None = None  # since when data could be sent again, while unsure

    def poll(self) -> Resume | None:
        """Take what has come in and ask again in time; returns where to go on after the daemon was away."""
        while self._monitor.poll(0):
            recv_monitor_message(self._monitor)
            self.unsure, self._next_seq, self._back_s, self._asked_s = True, None, None, 0.0
            self._asked += 1  # an answer on its way is from before
        resume = None
        while (frames := take(self._socket)) is not None:
            resume = self._read(frames) or resume
        now_s = time.monotonic()
        if now_s - self._asked_s >= (ASK_AGAIN_S if self.unsure else ASK_EVERY_S):
            request = ReceivedRequest(request_id=self._asked + 1, stream=self.stream)
            if give(self._socket, encode(request)):
                self._asked += 1
                self._asked_s = now_s
        if self.unsure and self._data.poll(0, zmq.POLLOUT):
            self._back_s = now_s if self._back_s is None else self._back_s
            self.unsure = now_s - self._back_s < GIVE_UP_S
        return resume

    def wait(self, timeout_s: float) -> None:
        """Return when an answer has come, or after `timeout_s`."""
        self._socket.poll(int(timeout_s * 1000))

    def close(self) -> None:
        """Close the sockets; the one that data go through must still be open."""
        self._data.disable_monitor()
        self._monitor.close(linger=0)  # or its context could never end
        disconnect(self._socket)

    def _read(self, frames: list[bytes]) -> Resume | None:
        try:
            reply = decode(frames)
        except WireError:
            return None
        if not isinstance(reply, ReceivedReply) or reply.request_id != self._asked:
            return None
        restarted = self.received is None or reply.instance != self.received.instance
        first, self.received = self.received is None, reply
        if not self.unsure and (first or not restarted):
            return None
        # A daemon that only was out of reach may still have messages to decode: two equal answers say that it has not.
        settled = restarted or reply.next_seq == self._next_seq
        self._next_seq = reply.next_seq
        if not settled:
            return None
        self.unsure = False
        return Resume(reply.next_seq if reply.known and reply.epoch == self.epoch else None)
