"""An HTTP API with rates of currencies; each answer has another date and id, and is sent in chunks.

json_rates.py PORT [RATE_OF_EUR]
"""

import json
import sys
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

RATES = {"EUR": float(sys.argv[2]) if len(sys.argv) > 2 else 1.087, "CHF": 0.95}


class Rates(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        currency = parse_qs(urlsplit(self.path).query)["to"][0]
        value = {"to": currency, "rate": RATES[currency], "id": str(uuid.uuid4()), "at": time.time()}
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for part in (body[:5], body[5:], b""):
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Rates).serve_forever()
