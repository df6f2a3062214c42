# Consumes from the beginning as a member of a group and logs each message, until --expect messages have come, none has
# come for --idle-ms, or SIGTERM. --set NAME=VALUE gives the library a setting.
import signal
import sys
import time

import confluent_kafka

import instrumented
import options
import security
from truth import Truth


def main():
    given = options.parse(
        "group", expect=sys.maxsize, idle_ms=60_000, set="", isolation_level="read_committed", instrumented="false"
    )
    if given.instrumented == "true":
        instrumented.confluent_kafka()
    truth = Truth(given)
    consumer = confluent_kafka.Consumer({
        "bootstrap.servers": given.bootstrap,
        "client.id": given.client_id,
        "group.id": given.group,
        "auto.offset.reset": "earliest",
        "isolation.level": given.isolation_level,
        **security.librdkafka(given),
        **options.settings(given.set),
    })
    stopped = False

    def stop(*_):
        nonlocal stopped
        stopped = True

    signal.signal(signal.SIGTERM, stop)
    consumer.subscribe(given.topic.split(","))
    seen, last = 0, time.monotonic()
    while not stopped and seen < given.expect and time.monotonic() - last < given.idle_ms / 1000:
        for message in consumer.consume(500, 0.2):
            if message.error():
                truth.error(message.error())
                continue
            key = message.key()
            value = message.value()
            truth.message(
                "received", message, message.headers(), key.decode() if key is not None else None,
                len(value) if value is not None else None, given.group,
            )  # fmt: skip
            seen, last = seen + 1, time.monotonic()
        truth.file.flush()
    time.sleep(given.stay_ms / 1000)
    consumer.close()


main()
