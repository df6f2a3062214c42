# Produces messages and logs each as the broker acknowledged it. With --edges true, of four messages in turn one has no
# key, one empty key and value, one no value. --set NAME=VALUE gives the library a setting.
import sys
import time

from confluent_kafka import Producer

import header_style
import options
from truth import Truth


def main():
    given = options.parse(
        count=1, codec="none", acks="all", idempotence="true", payload=100, header_style="none", linger_ms=5,
        key_prefix=None, interval_ms=0, edges="false", set="",
    )  # fmt: skip
    truth = Truth(given)
    failed = False
    producer = Producer({
        "bootstrap.servers": given.bootstrap,
        "client.id": given.client_id,
        "compression.type": given.codec,
        "acks": given.acks,
        "enable.idempotence": given.idempotence,
        "linger.ms": given.linger_ms,
        **options.settings(given.set),
    })
    prefix = given.key_prefix or given.client_id
    value = options.payload(given.payload)

    def log(key, value, headers):
        def delivered(error, message):
            nonlocal failed
            if error:
                failed = True
                truth.error(error)
            else:
                truth.message("sent", message, headers, key, len(value) if value is not None else None)

        return delivered

    for i in range(given.count):
        headers = header_style.write(given.header_style, i)
        key, body = options.shape(given.edges, i, f"{prefix}-{i}", value)
        while True:
            try:
                producer.produce(given.topic, body, key, headers=headers, on_delivery=log(key, body, headers))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
        if given.interval_ms:
            time.sleep(given.interval_ms / 1000)
    left = producer.flush(60)
    sys.exit(1 if failed or left else 0)


main()
