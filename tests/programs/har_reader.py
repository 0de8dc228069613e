"""Reads an HTTP archive with a library that knows the format, and tells what is in it."""

import json
import sys

from haralyzer import HarParser

with open(sys.argv[1], encoding="utf-8") as file:
    parser = HarParser(json.load(file))
entries = [entry for page in parser.pages for entry in page.entries]
read = [
    {
        "method": entry.request.method,
        "url": entry.request.url,
        "status": entry.response.status,
        "text": entry.response.text,
        "time": entry.time,
        "started": entry.startTime.isoformat(),
    }
    for entry in entries
]
print(json.dumps({"version": parser.version, "creator": parser.creator["name"], "entries": read}))
