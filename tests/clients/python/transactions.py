# Commits and aborts transactions in turn, each of --size messages, and logs each message with what became of it.
from confluent_kafka import Producer

import options
from truth import Truth


def main():
    given = options.parse(transactions=100, size=3)
    truth = Truth(given)
    producer = Producer({
        "bootstrap.servers": given.bootstrap,
        "client.id": given.client_id,
        "transactional.id": given.service,
        "linger.ms": 1,
    })
    producer.init_transactions(30)
    for number in range(given.transactions):
        delivered = []
        producer.begin_transaction()
        for one in range(given.size):
            # the last of an aborted transaction may never have been sent: its place is not known then
            producer.produce(
                given.topic, key=f"{number}-{one}", value=options.payload(50),
                on_delivery=lambda error, message: delivered.append((error, message)),
            )  # fmt: skip
        producer.flush(30)
        committed = number % 2 == 0
        if committed:
            producer.commit_transaction(30)
        else:
            producer.abort_transaction(30)
        for error, message in delivered:
            if error:
                truth.error(error)
            else:
                truth.write(
                    event="sent", topic=message.topic(), partition=message.partition(), offset=message.offset(),
                    committed=committed,
                )  # fmt: skip


main()
