// OpenTelemetry's instrumentation of kafkajs. Spans of its own go nowhere: it is there for what it puts into headers.
'use strict';

const { registerInstrumentations } = require('@opentelemetry/instrumentation');
const { KafkaJsInstrumentation } = require('@opentelemetry/instrumentation-kafkajs');
const { NodeTracerProvider } = require('@opentelemetry/sdk-trace-node');

const tracerProvider = new NodeTracerProvider();
tracerProvider.register();
registerInstrumentations({ tracerProvider, instrumentations: [new KafkaJsInstrumentation()] });
