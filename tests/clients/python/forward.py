# A service between topics: it reads as a member of a group, and sends on to `NAME-INTO` what it reads in `NAME-…`, with key and
# value as they are but for what the value's first word asks:
#
#   pass        nothing else
#   keep        with the timestamp, too, as Kafka Streams does it
#   rename KEY  with another key
#   fork        twice
#   pair ID     once for two of the same id, with the second one's key and value
#   hold MS     after so long
#   drop        not at all
#
# Each message is logged when it has come, and each that was sent with the places of those `because` of which it was. With
# --own COUNT, it sends that many messages to each topic of --own-topics of its own accord, one every --own-ms. Ends when
# --expect messages have come and all is sent.
import sys
import time
from contextlib import nullcontext

import confluent_kafka

import instrumented
import options
from truth import Truth


class Service:
    def __init__(self, given):
        self.given, self.truth = given, Truth(given)
        # looked up here, as the instrumentation puts other classes in their place
        self.consumer = confluent_kafka.Consumer({
            "bootstrap.servers": given.bootstrap,
            "client.id": given.client_id,
            "group.id": given.group,
            "auto.offset.reset": "earliest",
        })
        self.producer = confluent_kafka.Producer({
            "bootstrap.servers": given.bootstrap,
            "client.id": given.client_id,
            "linger.ms": 1,
        })
        self.trace_of = instrumented.trace_of if given.instrumented == "true" else lambda headers: nullcontext()
        # by id, the first of a pair; what is held, and until when
        self.halves, self.held, self.failed = {}, [], False

    def run(self):
        self.consumer.subscribe(self.given.topic.split(","), on_assign=lambda *_: print("assigned", flush=True))
        seen, own, own_at = 0, 0, time.monotonic()
        while seen < self.given.expect or own < self.given.own or self.held:
            message = self.consumer.poll(0.01)
            if message is not None and message.error():
                self.truth.error(message.error())
            elif message is not None:
                seen += 1
                self.take(message)
            # once it reads: what it makes of its own accord stands between what it makes because of others
            if seen and own < self.given.own and time.monotonic() >= own_at:
                for topic in self.given.own_topics.split(","):
                    self.send(topic, f"own-{own}", "own", [])
                own, own_at = own + 1, time.monotonic() + self.given.own_ms / 1000
            while self.held and time.monotonic() >= self.held[0][0]:
                message = self.held.pop(0)[1]
                self.send_on(message, [message])
            self.producer.poll(0)
        left = self.producer.flush(60)
        self.consumer.close()
        return not left and not self.failed

    def take(self, message):
        key, value = message.key(), message.value()
        key = key.decode() if key is not None else None
        self.truth.message("received", message, message.headers(), key, len(value), self.given.group)
        match value.decode().split():
            case ["pass", *_]:
                self.send_on(message, [message])
            case ["keep", *_]:
                self.send_on(message, [message], timestamp=message.timestamp()[1])
            case ["rename", other, *_]:
                self.send_on(message, [message], key=other)
            case ["fork", *_]:
                self.send_on(message, [message])
                self.send_on(message, [message])
            case ["pair", id, *_]:
                first = self.halves.pop(id, None)
                if first is None:
                    self.halves[id] = message
                else:
                    self.send_on(message, [first, message])
            case ["hold", ms, *_]:
                self.held.append((time.monotonic() + int(ms) / 1000, message))
            case ["drop", *_]:
                pass
            case other:
                raise SystemExit(f"unknown: {other}")

    def send_on(self, message, because, key=None, **more):
        topic = message.topic().rsplit("-", 1)[0] + "-" + self.given.into
        with self.trace_of(message.headers()):
            self.send(topic, key or message.key(), message.value(), because, **more)

    def send(self, topic, key, value, because, **more):
        # the instrumentation adds to this list
        headers = []
        text = key.decode() if isinstance(key, bytes) else key
        places = [
            {"topic": one.topic(), "partition": one.partition(), "offset": one.offset()} for one in because
        ]

        def delivered(error, message):
            if error:
                self.failed = True
                self.truth.error(error)
            else:
                self.truth.message("sent", message, headers, text, len(value), because=places)

        self.producer.produce(topic, value, key, headers=headers, on_delivery=delivered, **more)


def main():
    given = options.parse(
        "group", "into", expect=sys.maxsize, own=0, own_ms=50, own_topics="", instrumented="false"
    )
    if given.instrumented == "true":
        instrumented.confluent_kafka()
    sys.exit(0 if Service(given).run() else 1)


main()
