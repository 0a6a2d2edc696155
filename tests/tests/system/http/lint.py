"""Judges answers of an HTTP server with httplint: lint.py FILE... Prints `# FILE` and its notes, a line each."""

import sys
from argparse import Namespace

from httplint.cli.http_parser import HttpCliParser, modes

for name in sys.argv[1:]:
    print("#", name, flush=True)
    parser = HttpCliParser(Namespace(mode=modes.RESPONSE))
    with open(name, "rb") as answer:
        parser.handle_input(answer.read())
    if parser.failed:
        print("* [BAD] this is no answer of HTTP/1.1")
