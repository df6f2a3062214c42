# Creates topics, and deletes those of these names before: `topics.py BOOTSTRAP PARTITIONS TOPIC…`, with settings as
# `TOPIC:NAME=VALUE`. It returns when their partitions have leaders that know it: a broker
# reports itself as leader before it is.
import sys
import time

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

bootstrap, partitions, *topics = sys.argv[1:]
settings = {}
for topic in topics:
    name, *given = topic.split(":")
    settings[name] = dict(one.split("=", 1) for one in given)
names = list(settings)
admin = AdminClient({"bootstrap.servers": bootstrap})
known = [name for name in names if name in admin.list_topics(timeout=10).topics]
for deleted in admin.delete_topics(known, operation_timeout=30).values() if known else []:
    deleted.result(30)
for created in admin.create_topics([NewTopic(name, int(partitions), config=settings[name]) for name in names]).values():
    created.result(30)


def serves():
    known = admin.list_topics(timeout=10).topics
    if any(name not in known or len(known[name].partitions) != int(partitions) for name in names):
        return False
    wanted = {TopicPartition(name, number): OffsetSpec.latest() for name in names for number in range(int(partitions))}
    try:
        for told in admin.list_offsets(wanted, request_timeout=10).values():
            told.result(10)
    except KafkaException:
        return False
    return True


deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    if serves():
        sys.exit(0)
    time.sleep(0.1)
sys.exit("topics have no leaders after 30 s")
