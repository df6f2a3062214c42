# Several members of several groups in one process, all under the same client id unless --own-ids: each in a thread of its own,
# logging each message with its group and member id, and what it is assigned. Ends on SIGTERM. A member whose number is
# among --leavers goes after --seconds, or when it has got a message, one among --joiners comes then. With --in-turn a group's
# members begin when those of the group before have got a message.
import signal
import threading
import time

from confluent_kafka import Consumer

import options
from truth import Truth

CONSUMER_PROTOCOL = {"group.protocol": "consumer"}
CLASSIC = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}


def main():
    given = options.parse("groups", members=3, seconds=9, leavers="", joiners="", consumer_protocol="", own_ids="", in_turn="")
    truth = Truth(given)
    lock, begin = threading.Lock(), time.monotonic()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    numbers = lambda text: {int(one) for one in text.split(",") if one}
    leavers, joiners = numbers(given.leavers), numbers(given.joiners)
    groups = given.groups.split(",")
    got = {group: set() for group in groups}

    def changes():
        return stopped.is_set() or time.monotonic() - begin > given.seconds

    def log(consumer, group, event, **fields):
        with lock:
            truth.write(event=event, group=group, member=consumer.memberid(), at=time.time_ns(), **fields)
            truth.file.flush()

    def has_turn(group, number):
        at = groups.index(group)
        if not given.in_turn or at == 0 or stopped.is_set():
            return True
        together = {one for one in range(given.members) if (one in joiners) == (number in joiners)}
        return together <= got[groups[at - 1]]

    def member(group, number):
        while (number in joiners and not changes()) or not has_turn(group, number):
            time.sleep(0.1)
        protocol = CONSUMER_PROTOCOL if group in given.consumer_protocol.split(",") else CLASSIC
        consumer = Consumer({
            "bootstrap.servers": given.bootstrap,
            "client.id": f"{given.client_id}-{group}-{number}" if given.own_ids else given.client_id,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": "false",
            "fetch.wait.max.ms": 100,
            **protocol,
        })

        def assigned(consumer, partitions):
            log(consumer, group, "assigned", partitions=[[one.topic, one.partition] for one in partitions])

        consumer.subscribe(given.topic.split(","), on_assign=assigned)
        while not stopped.is_set() and not (number in leavers and number in got[group] and changes()):
            for message in consumer.consume(200, 0.1):
                if message.error():
                    continue
                log(
                    consumer, group, "delivered",
                    topic=message.topic(), partition=message.partition(), offset=message.offset(),
                )  # fmt: skip
                got[group].add(number)
            try:
                consumer.commit(asynchronous=False)
            except Exception as error:
                log(consumer, group, "uncommitted", error=str(error))
        consumer.close()

    threads = [
        threading.Thread(target=member, args=(group, number))
        for group in groups
        for number in range(given.members)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


main()
