# Produces messages and logs each as the broker acknowledged it.
import sys
import time

from confluent_kafka import Producer

import header_style
import options
from truth import Truth


def main():
    given = options.parse(
        count=1, codec="none", acks="all", idempotence="true", payload=100, header_style="none", linger_ms=5,
        key_prefix=None, interval_ms=0,
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
    })
    prefix = given.key_prefix or given.client_id
    value = "".join(f"item-{i} " for i in range(given.payload // 6 + 1))[: given.payload]

    def log(key, headers):
        def delivered(error, message):
            nonlocal failed
            if error:
                failed = True
                truth.error(error)
            else:
                truth.message("sent", message, headers, key, len(value))

        return delivered

    for i in range(given.count):
        key, headers = f"{prefix}-{i}", header_style.write(given.header_style)
        while True:
            try:
                producer.produce(given.topic, value, key, headers=headers, on_delivery=log(key, headers))
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)
        if given.interval_ms:
            time.sleep(given.interval_ms / 1000)
    left = producer.flush(60)
    sys.exit(1 if failed or left else 0)


main()
