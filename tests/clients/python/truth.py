# Writes what a client knows about its messages, one JSON object a line.
import base64
import json


def header_value(raw):
    """Text as it is, bytes that are no UTF-8 as {"base64": …}."""
    if raw is None:
        return None
    if isinstance(raw, str):
        return raw
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


class Truth:
    def __init__(self, options, client="python"):
        self.file = open(options.truth, "w", encoding="utf-8")
        self.who = {"client": client, "service": options.service, "client_id": options.client_id}

    def message(self, event, message, headers, key, value_len, group=None, **more):
        offset = message.offset()
        kind, timestamp = message.timestamp()
        self.write(
            event=event,
            group=group,
            topic=message.topic(),
            partition=message.partition(),
            # acks=0: the broker returns no offset
            offset=offset if offset is not None and offset >= 0 else None,
            # before Kafka 0.10 messages have none
            timestamp=timestamp if kind else None,
            key=key,
            value_len=value_len,
            headers=[[name, header_value(value)] for name, value in headers or []],
            **more,
        )

    def transaction_ends(self, committed):
        """What was sent since the last such line was one transaction."""
        self.write(event="committed" if committed else "aborted")

    def error(self, error):
        self.write(event="error", error=str(error))
        self.file.flush()

    def write(self, **fields):
        print(json.dumps({**self.who, **fields}), file=self.file)
