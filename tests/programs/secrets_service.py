"""A web service that answers with secrets of its own: for tests of what a recording keeps."""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Service(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        secrets = json.loads(self.headers.get("X-Answer", "[]").replace("'", '"'))
        answer = {"seen": "plain-marker", "bytes": len(body)}
        if len(secrets) > 1:
            answer["access_token"] = secrets[0]
            answer["user"] = {"name": "ann", "api_key": secrets[1], "old_passwords": secrets[2:3]}
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if len(secrets) > 3:
            self.send_header("Set-Cookie", f"sid={secrets[3]}; Path=/; HttpOnly")
        if self.path.startswith("/chunked"):
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            # In pieces that cut every name and value.
            for at in range(0, len(text), 3):
                piece = text[at : at + 3]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    do_GET = do_POST = answer

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Service)
server.serve_forever()
