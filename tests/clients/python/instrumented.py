# OpenTelemetry's instrumentation of the clients. Spans of its own go nowhere: it is there for what it puts into headers.
from contextlib import contextmanager

from opentelemetry import context, propagate, trace
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


@contextmanager
def trace_of(headers):
    """What is sent within belongs to the trace that these headers name. The instrumentation of confluent-kafka would begin a
    new one, with a link."""
    named = propagate.extract({name: value.decode() for name, value in headers or []})
    token = context.attach(named)
    try:
        yield
    finally:
        context.detach(token)
