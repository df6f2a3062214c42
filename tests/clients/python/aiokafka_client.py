# aiokafka, whose TLS is a memory BIO that asyncio fills and empties: `aiokafka_client.py produce|consume OPTIONS`, as produce.py
# and consume.py do it with confluent-kafka.
import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

import header_style
import options
import security
from truth import Truth, header_value


async def produce():
    given = options.parse(
        count=1, codec="none", acks="all", idempotence="true", payload=100, header_style="none", edges="false",
        interval_ms=0,
    )  # fmt: skip
    truth = Truth(given, "aiokafka")
    producer = AIOKafkaProducer(
        bootstrap_servers=given.bootstrap,
        client_id=given.client_id,
        compression_type=None if given.codec == "none" else given.codec,
        acks=given.acks if given.acks == "all" else int(given.acks),
        enable_idempotence=given.idempotence == "true",
        linger_ms=5,
        **security.python(given),
    )
    await producer.start()
    sent = []
    for i in range(given.count):
        # its headers have no null values
        headers = [one for one in header_style.write(given.header_style, i) if one[1] is not None]
        key, value = options.shape(given.edges, i, f"{given.client_id}-{i}", options.payload(given.payload))
        raw = [(name, encoded(one)) for name, one in headers]
        sent.append((await producer.send(given.topic, encoded(value), encoded(key), headers=raw), key, value, raw))
        if given.interval_ms:
            await asyncio.sleep(given.interval_ms / 1000)
    for future, key, value, headers in sent:
        at = await future
        write(truth, "sent", None, at.topic, at.partition, at.offset, at.timestamp, key, value, headers)
    await asyncio.sleep(given.stay_ms / 1000)
    await producer.stop()


async def consume():
    given = options.parse("group", expect=sys.maxsize, isolation_level="read_uncommitted")
    truth = Truth(given, "aiokafka")
    consumer = AIOKafkaConsumer(
        *given.topic.split(","),
        bootstrap_servers=given.bootstrap,
        client_id=given.client_id,
        group_id=given.group,
        auto_offset_reset="earliest",
        isolation_level=given.isolation_level,
        **security.python(given),
    )
    await consumer.start()
    seen = 0
    while seen < given.expect:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            for one in records:
                key = one.key.decode() if one.key is not None else None
                place = (one.topic, one.partition, one.offset, one.timestamp)
                write(truth, "received", given.group, *place, key, one.value, one.headers)
                seen += 1
    await asyncio.sleep(given.stay_ms / 1000)
    await consumer.stop()


def encoded(text):
    return text.encode() if isinstance(text, str) else text


def write(truth, event, group, topic, partition, offset, timestamp, key, value, headers):
    truth.write(
        event=event, group=group, topic=topic, partition=partition, offset=offset, timestamp=timestamp, key=key,
        value_len=len(value) if value is not None else None,
        headers=[[name, header_value(one)] for name, one in headers],
    )  # fmt: skip


asyncio.run({"produce": produce, "consume": consume}[sys.argv.pop(1)]())
