"""A collector for the tests: decodes OTLP over HTTP with OpenTelemetry's own messages, and takes nothing that is odd.

otlp_receiver.py LOG [BUSY]: prints its address, then appends each request that it took to LOG, a JSON object a line.
The first BUSY requests get 503 and are to come again.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces

KINDS = {
    "/v1/metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
    "/v1/traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
}


def check(message, path):
    """No field that the protocol's authors don't know, at any depth."""
    unknown = [field.field_number for field in UnknownFieldSet(message)]
    if unknown:
        raise ValueError(f"{path} has unknown fields {unknown}")
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            check(part, f"{path}.{field.name}")


class Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    busy = 0

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if Receiver.busy > 0:
            Receiver.busy -= 1
            self.answer(503, b"", {"retry-after": "0"})
            return
        try:
            request, response = KINDS[self.path]
            if self.headers["content-type"] != "application/x-protobuf":
                raise ValueError(f"content-type {self.headers['content-type']}")
            message = request()
            message.ParseFromString(body)
            check(message, self.path)
        except Exception as error:
            print(f"refused: {error!r}", file=sys.stderr, flush=True)
            self.answer(400, b"", {})
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        line = {"path": self.path, "headers": headers, "body": MessageToDict(message)}
        with open(sys.argv[1], "a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")
        self.answer(200, response().SerializeToString(), {})

    def answer(self, status, body, headers):
        self.send_response(status)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


Receiver.busy = int(sys.argv[2]) if len(sys.argv) > 2 else 0
server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
print("listening 127.0.0.1:%d" % server.server_address[1], flush=True)
server.serve_forever()
