// kafkajs: `client.js produce|consume|forward OPTIONS`, with the options of the other clients.
//
// `forward` sends each message on, with key and value as they are, to the topic of --into: `NAME-TOPIC` of `NAME-…`.
// With --edges true, of four messages in turn one has no key, one empty key and value, one no value. With --cells it
// produces to one topic after the other, as the other clients do.
'use strict';

const fs = require('node:fs');
const { randomBytes } = require('node:crypto');

const [verb, ...rest] = process.argv.slice(2);
const options = {};
for (let i = 0; i + 1 < rest.length; i += 2) options[rest[i].replace(/^--/, '')] = rest[i + 1];

// before kafkajs is loaded
if (options.instrumented === 'true') require('./instrumented.js');
const { Kafka, logLevel } = require('kafkajs');
const codecs = require('./codecs.js');

const kafka = new Kafka({
  brokers: options.bootstrap.split(','),
  clientId: options['client-id'],
  logLevel: logLevel.WARN,
  ...security(),
});
const truth = fs.openSync(options.truth, 'w');

/** TLS where --ca names the certificate to trust, with the client's own one and its key in --identity, and SASL by
    --sasl MECHANISM:USER:PASSWORD. */
function security() {
  if (!options.ca) return {};
  const identity = options.identity && fs.readFileSync(options.identity);
  const [mechanism, username, password] = options.sasl?.split(':') ?? [];
  return {
    ssl: { ca: [fs.readFileSync(options.ca)], cert: identity, key: identity },
    sasl: mechanism && { mechanism: mechanism.toLowerCase(), username, password },
  };
}

function tell(line) {
  const who = { client: 'kafkajs', service: options.service, client_id: options['client-id'] };
  fs.writeSync(truth, `${JSON.stringify({ ...who, ...line })}\n`);
}

/** Text, or {"base64": …} where it is none, or null. */
function headerValue(raw) {
  if (raw === null) return null;
  const bytes = Buffer.from(raw);
  const text = bytes.toString();
  return Buffer.from(text).equals(bytes) ? text : { base64: bytes.toString('base64') };
}

/** A key with several values is an array in kafkajs. */
function pairs(headers) {
  return Object.entries(headers ?? {}).flatMap(([key, values]) =>
    [values].flat().map((value) => [key, headerValue(value)]),
  );
}

/** Stays connected when it is done, for --stay-ms. */
const stay = () => new Promise((enough) => setTimeout(enough, Number(options['stay-ms'] ?? 0)));

const hex = (bytes) => randomBytes(bytes).toString('hex');

/** kafkajs has no header without a value. */
function headers(number) {
  const traceparent = `00-${hex(16)}-${hex(8)}-01`;
  switch (options['header-style']) {
    case 'none':
      return undefined;
    case 'traceparent':
      return { traceparent };
    case 'edges':
      return [
        { 'content-type': 'text/plain', traceparent },
        { b3: `${hex(16)}-${hex(8)}-1`, twice: ['1', '2'] },
        { '': 'empty key', bytes: Buffer.from([0xff, 0, 0xfe]) },
        undefined,
      ][number % 4];
    default:
      throw new Error(`unknown header style: ${options['header-style']}`);
  }
}

function message(number) {
  const text = 'item-0 '.repeat(options.payload / 7 + 1).slice(0, options.payload);
  const kind = options.edges === 'true' ? number % 4 : 0;
  const key = `${options['client-id']}-${number}`;
  const [k, v] = [[key, text], [null, text], ['', ''], [key, null]][kind];
  // one partition, so that every message's offset follows from the answer's base offset
  return { key: k, value: v, headers: headers(number), partition: 0, timestamp: String(Date.now() + number) };
}

function cells() {
  const { topic, codec, acks, idempotence } = options;
  if (!options.cells) return [{ topic, codec, acks, idempotent: idempotence === 'true' }];
  return options.cells.split(',').map((cell) => {
    const [topic, codec, mode] = cell.split(':');
    const plain = mode === 'plain';
    return { topic, codec, acks: plain ? '1' : 'all', idempotent: !plain, transactional: mode === 'transactional' };
  });
}

async function produce() {
  await codecs.ready;
  for (const cell of cells()) await produceCell(cell);
}

/** In a cell that is transactional, every second transaction of `--transaction` messages is aborted. */
async function produceCell({ topic, codec, acks, idempotent, transactional }) {
  const producer = kafka.producer({
    idempotent,
    maxInFlightRequests: 1,
    transactionalId: transactional ? topic : undefined,
  });
  await producer.connect();
  const all = Array.from({ length: Number(options.count) }, (_, number) => message(number));
  const send = async (by, messages) => {
    const request = { topic, acks: { all: -1, 1: 1, 0: 0 }[acks], compression: codecs.types[codec], messages };
    const [at] = await by.send(request);
    messages.forEach((one, number) => tell({
      event: 'sent',
      topic,
      partition: 0,
      offset: Number(at.baseOffset) + number,
      timestamp: Number(one.timestamp),
      key: one.key,
      value_len: one.value?.length ?? null,
      headers: pairs(one.headers),
    }));
  };
  if (!transactional) await send(producer, all);
  const size = Number(options.transaction ?? 4);
  for (let from = 0; transactional && from < all.length; from += size) {
    const transaction = await producer.transaction();
    await send(transaction, all.slice(from, from + size));
    const commit = (from / size) % 2 === 0;
    await (commit ? transaction.commit() : transaction.abort());
    tell({ event: commit ? 'committed' : 'aborted' });
  }
  await stay();
  await producer.disconnect();
}

/** `then` is done with each message before the next one. */
async function consume(then = async () => {}) {
  await codecs.ready;
  const readUncommitted = options['isolation-level'] === 'read_uncommitted';
  const consumer = kafka.consumer({ groupId: options.group, maxWaitTimeInMs: 500, readUncommitted });
  consumer.on(consumer.events.GROUP_JOIN, () => console.log('assigned'));
  await consumer.connect();
  await consumer.subscribe({ topics: options.topic.split(','), fromBeginning: true });
  let seen = 0;
  await new Promise((enough) => {
    consumer.run({
      eachMessage: async (delivered) => {
        received(delivered);
        await then(delivered);
        seen += 1;
        if (seen === Number(options.expect)) enough();
      },
    });
  });
  await stay();
  await consumer.disconnect();
}

function received({ topic, partition, message: got }) {
  tell({
    event: 'received',
    group: options.group,
    topic,
    partition,
    offset: Number(got.offset),
    timestamp: Number(got.timestamp),
    key: got.key?.toString() ?? null,
    value_len: got.value?.length ?? null,
    headers: pairs(got.headers),
  });
}

async function forward() {
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
  await consume(async ({ topic: from, partition, message: got }) => {
    const topic = from.replace(/[^-]*$/, options.into);
    const one = { key: got.key, value: got.value, timestamp: String(Date.now()) };
    const [at] = await producer.send({ topic, messages: [one] });
    tell({
      event: 'sent',
      because: [{ topic: from, partition, offset: Number(got.offset) }],
      topic,
      partition: at.partition,
      offset: Number(at.baseOffset),
      timestamp: Number(one.timestamp),
      key: one.key?.toString() ?? null,
      value_len: one.value?.length ?? null,
      headers: pairs(one.headers),
    });
  });
  await producer.disconnect();
}

({ produce, consume, forward })[verb]().catch((error) => {
  console.error(error);
  process.exit(1);
});
