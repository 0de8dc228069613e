"""Reads an HTTP archive with a library that knows the format, and tells what is in it."""

import json
import sys

from haralyzer import HarParser

with open(sys.argv[1], encoding="utf-8") as file:
    parser = HarParser(json.load(file))
entries = parser._pages[0].entries if parser._pages else [e for p in parser.pages for e in p.entries]
if not entries:
    from haralyzer import HarEntry

    entries = [HarEntry(entry) for entry in parser.har_data["entries"]]
print(
    json.dumps(
        {
            "version": parser.version,
            "creator": parser.creator.name if hasattr(parser.creator, "name") else parser.creator["name"],
            "entries": [
                {
                    "method": entry.request.method,
                    "url": entry.request.url,
                    "status": entry.response.status,
                    "text": entry.response.text,
                    "time": entry.time,
                    "started": entry.startTime.isoformat(),
                }
                for entry in entries
            ],
        }
    )
)
