# Moves the leaders of a topic's partitions: `leaders.py BOOTSTRAP TOPIC TURN`. Of its replicas, each partition's preferred leader
# becomes the one that stands TURN places behind its own number; it returns when all of them lead.
import sys
import time

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

bootstrap, topic, turn = sys.argv[1:]
admin = KafkaAdminClient(bootstrap_servers=bootstrap.split(","), client_id="leaders")


def partitions():
    return {told["partition_index"]: told for told in admin.describe_topics([topic])[0]["partitions"]}


wanted = {}
for number, told in partitions().items():
    replicas = sorted(told["replica_nodes"])
    first = (number + int(turn)) % len(replicas)
    wanted[number] = replicas[first:] + replicas[:first]
admin.alter_partition_reassignments({TopicPartition(topic, number): order for number, order in wanted.items()})
deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    # one that has just come back leads nothing before it has what the others have
    admin.elect_leaders(0, {topic: list(wanted)}, raise_errors=False)
    if all(told["leader_id"] == wanted[number][0] for number, told in partitions().items()):
        sys.exit(0)
    time.sleep(0.2)
sys.exit(f"leaders have not moved after 30 s: {wanted}, but {partitions()}")
