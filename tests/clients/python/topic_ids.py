# Prints the ids of topics: `topic_ids.py BOOTSTRAP TOPIC…`, a line `NAME HEX` each.
import sys

from confluent_kafka import TopicCollection
from confluent_kafka.admin import AdminClient

bootstrap, *names = sys.argv[1:]
# kept, as results come only while it lives
admin = AdminClient({"bootstrap.servers": bootstrap})
for name, told in admin.describe_topics(TopicCollection(names)).items():
    id = told.result(30).topic_id
    most, least = (bits & (1 << 64) - 1 for bits in (id.get_most_significant_bits(), id.get_least_significant_bits()))
    print(name, f"{most:016x}{least:016x}")
