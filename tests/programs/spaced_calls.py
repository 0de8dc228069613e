"""Sends requests at uneven times, each after the answer to the one before: the same times in each run.

spaced_calls.py PORT COUNT
"""

import http.client
import random
import sys
import time

port, count = int(sys.argv[1]), int(sys.argv[2])
gaps = random.Random(7)
connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
due = time.monotonic()
for number in range(count):
    due += gaps.choice((0.002, 0.005, 0.011, 0.02))
    time.sleep(max(0, due - time.monotonic()))
    connection.request("GET", f"/{number}")
    assert connection.getresponse().read() == b"ok"
