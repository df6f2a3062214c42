# The clients' command line: the same names as in the Java clients.
import argparse


def parse(*names, **defaults):
    """Options `names` are required, `defaults` are not; all of them strings or numbers as their default is."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "topic", "service", "client-id", "truth", *names):
        parser.add_argument("--" + name, required=True)
    for name, value in defaults.items():
        kind = str if value is None else type(value)
        parser.add_argument("--" + name.replace("_", "-"), type=kind, default=value)
    return parser.parse_args()
