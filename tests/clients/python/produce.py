# Produces messages and logs each as the broker acknowledged it. With --edges true, of four messages in turn one has no
# key, one empty key and value, one no value. --set NAME=VALUE gives the library a setting. With --cells it does so for one
# topic after the other, transactions of --transaction messages where they are transactional; every second one is aborted.
# --timestamp MS is the first message's, the others' follow by a millisecond each.
# --instrumented true: with OpenTelemetry's instrumentation, which puts a traceparent into every message.
# On SIGTERM it sends nothing more, and ends when all is acknowledged.
import signal
import sys
import threading
import time

import confluent_kafka

import header_style
import instrumented
import options
import security
from truth import Truth


stopped = threading.Event()


class Cell:
    def __init__(self, given, truth, cell):
        self.given, self.truth, self.failed = given, truth, False
        self.topic, codec, acks, idempotence, self.transactional = cell
        settings = {
            "bootstrap.servers": given.bootstrap,
            "client.id": given.client_id,
            "compression.type": codec,
            "acks": acks,
            "enable.idempotence": idempotence,
            "linger.ms": given.linger_ms,
            **security.librdkafka(given),
            **options.settings(given.set),
        }
        if self.transactional:
            settings["transactional.id"] = self.transactional
        # looked up here, as the instrumentation puts another class in its place
        self.producer = confluent_kafka.Producer(settings)

    def run(self):
        if self.transactional:
            self.producer.init_transactions(30)
        value = options.payload(self.given.payload)
        for i in range(self.given.count):
            if stopped.is_set():
                break
            if self.transactional and i % self.given.transaction == 0:
                self.producer.begin_transaction()
            self.send(i, value)
            if self.transactional and i % self.given.transaction == self.given.transaction - 1:
                self.end_transaction(i // self.given.transaction % 2 == 0)
            if self.given.interval_ms:
                time.sleep(self.given.interval_ms / 1000)
        left = self.producer.flush(60)
        time.sleep(self.given.stay_ms / 1000)
        return not left and not self.failed

    def send(self, i, value):
        headers = header_style.write(self.given.header_style, i)
        prefix = self.given.key_prefix or self.given.client_id
        key, body = options.shape(self.given.edges, i, f"{prefix}-{i}", value)
        while True:
            try:
                log = self.log(key, body, headers)
                time_of = {"timestamp": self.given.timestamp + i} if self.given.timestamp else {}
                self.producer.produce(self.topic, body, key, headers=headers, on_delivery=log, **time_of)
                break
            except BufferError:
                self.producer.poll(0.1)
        self.producer.poll(0)

    def log(self, key, value, headers):
        def delivered(error, message):
            if error:
                self.failed = True
                self.truth.error(error)
            else:
                self.truth.message("sent", message, headers, key, len(value) if value is not None else None)

        return delivered

    def end_transaction(self, commit):
        # all is delivered and logged before it ends
        self.producer.flush(60)
        if commit:
            self.producer.commit_transaction(30)
        else:
            self.producer.abort_transaction(30)
        self.truth.transaction_ends(commit)


def main():
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    given = options.parse(
        count=1, codec="none", acks="all", idempotence="true", payload=100, header_style="none", linger_ms=5,
        key_prefix=None, interval_ms=0, edges="false", set="", cells="", transaction=4, instrumented="false",
        timestamp=0,
    )  # fmt: skip
    if given.instrumented == "true":
        instrumented.confluent_kafka()
    truth = Truth(given)
    well = [Cell(given, truth, cell).run() for cell in options.cells(given)]
    sys.exit(0 if all(well) else 1)


main()
