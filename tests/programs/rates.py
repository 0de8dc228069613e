"""What a shop asks of somebody else: answers after 30 ms, each tenth time after 90 ms.

rates.py ADDRESS PORT
"""

import itertools
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

asked = itertools.count()


class Rates(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        time.sleep(0.09 if next(asked) % 10 == 9 else 0.03)
        body = b"rate: 1.0871 <end>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Rates).serve_forever()
