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


def payload(length):
    return "".join(f"item-{i} " for i in range(length // 6 + 1))[:length]


def shape(edges, number, key, value):
    """Key and value of a message; with `edges`, of four in turn one is without key, one empty, one a tombstone."""
    kind = number % 4 if edges == "true" else 0
    return [(key, value), (None, value), ("", ""), (key, None)][kind]


def settings(text):
    """`NAME=VALUE,…` as a dictionary."""
    return dict(one.split("=", 1) for one in text.split(",") if one)
