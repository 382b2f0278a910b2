"""Posts bodies over kept-alive connections, one client a stream, and prints the posts a second as JSON.

Standard input: `{"port": N, "streams": [{"path": ..., "headers": {...}, "bodies": [...]}]}`. A process of its
own, so that what it costs is the same whoever answers; it shares nothing with this project.
"""

import http.client
import json
import sys
import time
from threading import Barrier, Thread
from typing import Any


def main() -> None:
    asked = json.load(sys.stdin)
    streams = [Stream(asked["port"], stream) for stream in asked["streams"]]
    gate = Barrier(len(streams) + 1)
    threads = [Thread(target=stream.run, args=(gate,)) for stream in streams]
    for thread in threads:
        thread.start()
    gate.wait()
    began = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began
    posts = sum(len(stream.bodies) for stream in streams)
    refused = [answer for stream in streams for answer in stream.refused]
    delays = sorted(delay for stream in streams for delay in stream.delays)
    print(json.dumps({"rate": posts / seconds, "median": delays[len(delays) // 2], "refused": refused[:3]}))


class Stream:
    """One client, which waits for each answer."""

    def __init__(self, port: int, stream: dict[str, Any]) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.path = stream["path"]
        self.headers = {"Content-Type": "application/json"} | stream["headers"]
        self.bodies = [body.encode() for body in stream["bodies"]]
        self.refused: list[str] = []
        self.delays: list[float] = []

    def run(self, gate: Barrier) -> None:
        self.connection.connect()
        gate.wait()
        for body in self.bodies:
            began = time.perf_counter()
            self.connection.request("POST", self.path, body, self.headers)
            answer = self.connection.getresponse()
            text = answer.read()
            self.delays.append(time.perf_counter() - began)
            if answer.status != 200:
                self.refused.append(f"{answer.status} {text[:200].decode(errors='replace')}")


if __name__ == "__main__":
    main()
