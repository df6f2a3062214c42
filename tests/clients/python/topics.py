# Creates topics: `topics.py BOOTSTRAP PARTITIONS TOPIC…`, and returns when their partitions have leaders.
import sys
import time

from confluent_kafka.admin import AdminClient, NewTopic

bootstrap, partitions, *names = sys.argv[1:]
admin = AdminClient({"bootstrap.servers": bootstrap})
for created in admin.create_topics([NewTopic(name, int(partitions), 1) for name in names]).values():
    created.result(30)

deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    known = admin.list_topics(timeout=10).topics
    if all(
        name in known and len(known[name].partitions) == int(partitions)
        and all(one.leader >= 0 for one in known[name].partitions.values())
        for name in names
    ):  # fmt: skip
        sys.exit(0)
    time.sleep(0.1)
sys.exit("topics have no leaders after 30 s")
