/* A process with TensorFlow.js and nothing else: answers requests for an exported model through a pipe.

   Its bytes are those of tensor_stream.py. */
"use strict";

const fs = require("fs");
const path = require("path");

const [folder, modules] = process.argv.slice(2);
const tf = require(path.join(modules, "@tensorflow/tfjs-node"));

const DTYPES = { 1: "float32", 3: "int32", 4: "int32", 7: "string" };
const NUMBERS = { float32: 1, int32: 3, string: 7 };

function readExactly(count) {
  const buffer = Buffer.alloc(count);
  let filled = 0;
  while (filled < count) {
    const read = fs.readSync(0, buffer, filled, count - filled, null);
    if (read === 0) {
      if (filled === 0) return null;
      throw new Error("a request is cut short");
    }
    filled += read;
  }
  return buffer;
}

const readCount = () => readExactly(4).readUInt32LE();
const readString = () => readExactly(readCount());

function readTensor() {
  const name = readString().toString();
  const number = readExactly(4).readInt32LE();
  const rank = readCount();
  const shape = Array.from({ length: rank }, () => Number(readExactly(8).readBigInt64LE()));
  const count = shape.reduce((product, length) => product * length, 1);
  if (number === 7) return [name, tf.tensor(Array.from({ length: count }, () => new Uint8Array(readString())), shape, "string")];
  const data = readExactly(count * (number === 4 ? 1 : 4));
  const values = Array.from({ length: count }, (_, i) => (number === 1 ? data.readFloatLE(4 * i) : number === 3 ? data.readInt32LE(4 * i) : data[i]));
  return [name, tf.tensor(values, shape, DTYPES[number])];
}

function counted(data) {
  const count = Buffer.alloc(4);
  count.writeUInt32LE(data.length);
  return Buffer.concat([count, data]);
}

function written(name, tensor) {
  const head = Buffer.alloc(8 + 8 * tensor.rank);
  head.writeInt32LE(NUMBERS[tensor.dtype], 0);
  head.writeUInt32LE(tensor.rank, 4);
  tensor.shape.forEach((length, i) => head.writeBigInt64LE(BigInt(length), 8 + 8 * i));
  const values = tensor.dataSync();
  const data = tensor.dtype === "string"
    ? Buffer.concat(Array.from(values, (text) => counted(Buffer.from(text))))
    : Buffer.from(values.buffer, values.byteOffset, values.byteLength);
  return Buffer.concat([counted(Buffer.from(name)), head, data]);
}

const pause = new Int32Array(new SharedArrayBuffer(4));

function send(data) {
  let sent = 0;
  while (sent < data.length) {
    try {
      sent += fs.writeSync(1, data, sent);
    } catch (error) {
      // Node.js opens pipes so that a full one is an error: wait until some of it has been read.
      if (error.code !== "EAGAIN") throw error;
      Atomics.wait(pause, 0, 0, 1);
    }
  }
}

async function main() {
  const models = {};
  for (let size = readExactly(4); size !== null; size = readExactly(4)) {
    const signature = readExactly(size.readUInt32LE()).toString();
    const inputs = Object.fromEntries(Array.from({ length: readCount() }, readTensor));
    const wanted = Array.from({ length: readCount() }, () => readString().toString());
    try {
      models[signature] ??= await tf.node.loadSavedModel(folder, ["serve"], signature);
      const outputs = models[signature].predict(inputs);
      const count = Buffer.alloc(5);
      count.writeUInt32LE(wanted.length, 1);
      send(Buffer.concat([count, ...wanted.map((name) => written(name, outputs[name]))]));
      tf.dispose(outputs);
    } catch (error) {
      send(Buffer.concat([Buffer.from([1]), counted(Buffer.from(String(error.message)))]));
    }
    tf.dispose(inputs);
  }
}

main();
