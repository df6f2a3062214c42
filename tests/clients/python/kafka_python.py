# kafka-python: `kafka_python.py produce|consume OPTIONS`, as produce.py and consume.py do it with confluent-kafka.
# --protocol is the broker version whose protocol is spoken; without it, the newest that both know.
import sys
import time

from kafka import KafkaConsumer, KafkaProducer

import header_style
import instrumented
import options
import security
from truth import Truth, header_value


def produce():
    given = options.parse(
        count=1, codec="none", acks="all", idempotence="true", payload=100, header_style="none", edges="false",
        interval_ms=0, protocol="", cells="", transaction=4, instrumented="false",
    )  # fmt: skip
    if given.instrumented == "true":
        instrumented.kafka_python()
    truth = Truth(given, "kafka-python")
    for cell in options.cells(given):
        produce_cell(given, truth, *cell)


def produce_cell(given, truth, topic, codec, acks, idempotence, transactional):
    more = {"transactional_id": transactional} if transactional else {}
    producer = KafkaProducer(
        bootstrap_servers=given.bootstrap,
        client_id=given.client_id,
        api_version=version(given.protocol),
        compression_type=None if codec == "none" else codec,
        acks=acks if acks == "all" else int(acks),
        enable_idempotence=idempotence == "true",
        linger_ms=50,
        **more,
        **security.python(given),
    )
    if transactional:
        producer.init_transactions()
    sent = []
    for i in range(given.count):
        if transactional and i % given.transaction == 0:
            producer.begin_transaction()
        # kafka-python has no header without a value
        headers = [one for one in header_style.write(given.header_style, i) if one[1] is not None]
        key, value = options.shape(given.edges, i, f"{given.client_id}-{i}", options.payload(given.payload))
        # the instrumentation adds to this list
        raw = [(name, encoded(one)) for name, one in headers]
        sent.append((producer.send(topic, encoded(value), encoded(key), raw), key, value, raw))
        if given.interval_ms:
            time.sleep(given.interval_ms / 1000)
        if transactional and i % given.transaction == given.transaction - 1:
            acknowledged(truth, sent)
            commit = i // given.transaction % 2 == 0
            if commit:
                producer.commit_transaction()
            else:
                producer.abort_transaction()
            truth.transaction_ends(commit)
    acknowledged(truth, sent)
    time.sleep(given.stay_ms / 1000)
    producer.close()


def acknowledged(truth, sent):
    """Logs what was sent, which then is no longer there."""
    for future, key, value, headers in sent:
        at = future.get(30)
        write(truth, "sent", None, at.topic, at.partition, at.offset, at.timestamp, key, value, headers)
    sent.clear()


def consume():
    given = options.parse(
        "group", expect=sys.maxsize, protocol="", isolation_level="read_uncommitted", instrumented="false"
    )
    if given.instrumented == "true":
        instrumented.kafka_python()
    truth = Truth(given, "kafka-python")
    consumer = KafkaConsumer(
        *given.topic.split(","),
        bootstrap_servers=given.bootstrap,
        client_id=given.client_id,
        api_version=version(given.protocol),
        group_id=given.group,
        auto_offset_reset="earliest",
        isolation_level=given.isolation_level,
        # its default is 1 MB, less than it asks for in a fetch, so that it would drop the connection and ask again for ever
        receive_message_max_bytes=100_000_000,
        **security.python(given),
    )
    seen = 0
    while seen < given.expect:
        for records in consumer.poll(200).values():
            for one in records:
                key = one.key.decode() if one.key is not None else None
                # before Kafka 0.10 messages have none
                timestamp = one.timestamp if one.timestamp_type is not None and one.timestamp >= 0 else None
                place = (one.topic, one.partition, one.offset, timestamp)
                write(truth, "received", given.group, *place, key, one.value, one.headers)
                seen += 1
    time.sleep(given.stay_ms / 1000)
    consumer.close()


def version(protocol):
    return tuple(map(int, protocol.split("."))) if protocol else None


def encoded(text):
    return text.encode() if isinstance(text, str) else text


def write(truth, event, group, topic, partition, offset, timestamp, key, value, headers):
    truth.write(
        event=event, group=group, topic=topic, partition=partition, offset=offset, timestamp=timestamp, key=key,
        value_len=len(value) if value is not None else None,
        headers=[[name, header_value(one)] for name, one in headers],
    )  # fmt: skip


{"produce": produce, "consume": consume}[sys.argv.pop(1)]()
