# The clients' command line: the same names as in the Java clients.
import argparse


def parse(*names, **defaults):
    """Options `names` are required, `defaults` are not; all of them strings or numbers as their default is."""
    parser = argparse.ArgumentParser()
    for name in ("bootstrap", "topic", "service", "client-id", "truth", *names):
        parser.add_argument("--" + name, required=True)
    # how long a client stays connected when it is done
    parser.add_argument("--stay-ms", type=int, default=0)
    # of security.py
    for name in ("ca", "identity", "sasl", "key-log"):
        parser.add_argument("--" + name, default="")
    for name, value in defaults.items():
        kind = str if value is None else type(value)
        parser.add_argument("--" + name.replace("_", "-"), type=kind, default=value)
    return parser.parse_args()


def cells(given):
    """Topic, codec, acks, idempotence and transactional id of all of `--cells TOPIC:CODEC:MODE,…`, where the mode is
    `plain` (acks=1), `idempotent` or `transactional`, with the topic as transactional id; without, what is given alone."""
    if not given.cells:
        return [(given.topic, given.codec, given.acks, given.idempotence, None)]
    modes = {"plain": ("1", "false"), "idempotent": ("all", "true"), "transactional": ("all", "true")}
    parts = [cell.split(":") for cell in given.cells.split(",")]
    return [
        (topic, codec, *modes[mode], topic if mode == "transactional" else None) for topic, codec, mode in parts
    ]


def payload(length):
    return "".join(f"item-{i} " for i in range(length // 6 + 1))[:length]


def shape(edges, number, key, value):
    """Key and value of a message; with `edges`, of four in turn one is without key, one empty, one a tombstone."""
    kind = number % 4 if edges == "true" else 0
    return [(key, value), (None, value), ("", ""), (key, None)][kind]


def settings(text):
    """`NAME=VALUE,…` as a dictionary."""
    return dict(one.split("=", 1) for one in text.split(",") if one)
