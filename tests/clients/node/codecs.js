// The codecs that kafkajs leaves to packages, by packages that need no compiler and no prebuilt binary.
'use strict';

const { CompressionCodecs, CompressionTypes } = require('kafkajs');
const lz4 = require('lz4js');
const zstd = require('@bokuweb/zstd-wasm');

/** Kafka takes no frames of blocks that may depend on each other, as which lz4js marks its own; tests have one block. */
function independent(frame) {
  const [dependent, instead] = ['04224d184070df', '04224d18607073'].map((header) => Buffer.from(header, 'hex'));
  if (!frame.subarray(0, 7).equals(dependent)) throw new Error('lz4js has changed its header');
  instead.copy(frame);
  return frame;
}

CompressionCodecs[CompressionTypes.Snappy] = require('kafkajs-snappy');
CompressionCodecs[CompressionTypes.LZ4] = () => ({
  compress: async (encoder) => independent(Buffer.from(lz4.compress(encoder.buffer))),
  decompress: async (buffer) => Buffer.from(lz4.decompress(buffer)),
});
CompressionCodecs[CompressionTypes.ZSTD] = () => ({
  compress: async (encoder) => Buffer.from(zstd.compress(encoder.buffer)),
  decompress: async (buffer) => Buffer.from(zstd.decompress(buffer)),
});

const { None, GZIP, Snappy, LZ4, ZSTD } = CompressionTypes;
exports.types = { none: None, gzip: GZIP, snappy: Snappy, lz4: LZ4, zstd: ZSTD };
/** zstd is WebAssembly. */
exports.ready = zstd.init();
