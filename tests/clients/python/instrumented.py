# OpenTelemetry's instrumentation of the clients. Spans of its own go nowhere: it is there for what it puts into headers.
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider


def confluent_kafka():
    from opentelemetry.instrumentation.confluent_kafka import ConfluentKafkaInstrumentor

    trace.set_tracer_provider(TracerProvider())
    ConfluentKafkaInstrumentor().instrument()


def kafka_python():
    from opentelemetry.instrumentation.kafka import KafkaInstrumentor

    trace.set_tracer_provider(TracerProvider())
    # it says that it is made for kafka-python 2
    KafkaInstrumentor().instrument(skip_dep_check=True)
