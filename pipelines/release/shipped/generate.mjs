// Draws pictures with model.onnx beside this file in Node: `node generate.mjs --seeds 0-3 --out pictures`.
// `--golden` draws the golden pictures instead and says how far they are from the ones in golden.npz.
//
// Seeds here are not those of generate.py: noise is drawn by Box-Muller from a small generator of its own, since numpy's
// Philox is not in Node. The same numbers as input give the same pictures; --golden shows it.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { deflateSync } from "node:zlib";

const HERE = dirname(fileURLToPath(import.meta.url));
const ARRAYS = { float32: Float32Array, int64: BigInt64Array };
const CODES = { "<f4": Float32Array, "<i8": BigInt64Array };

function fail(line) {
  console.error(`generate: ${line}`);
  process.exit(1);
}

function seedsOf(text) {
  const found = /^(\d+)(?:-(\d+))?$/.exec(text);
  const [first, last] = found ? [Number(found[1]), Number(found[2] ?? found[1])] : [1, 0];
  if (last < first) fail(`--seeds is ${text}; expected numbers such as 0-3`);
  return Array.from({ length: last - first + 1 }, (_, i) => first + i);
}

/** Standard normal numbers of a seed: mulberry32, then Box-Muller. */
function noise(seed, count) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return Float32Array.from({ length: count }, () =>
    Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}

/** The model's inputs for seeds: noise, classes in turn where none is chosen, defaults of all else. */
function inputsOf(contract, seeds, label) {
  const shape = contract.noise.latent_shape;
  const each = shape.reduce((a, b) => a * b, 1);
  const latent = new Float32Array(each * seeds.length);
  seeds.forEach((seed, i) => latent.set(noise(seed, each), i * each));
  const found = { latent: { data: latent, dims: [seeds.length, ...shape], type: "float32" } };
  for (const entry of contract.inputs.slice(1)) {
    const row = (seed) => entry.name === "label" ? [label ?? seed % contract.class_names.length] : [entry.default].flat();
    const values = seeds.flatMap(row);
    const data = entry.dtype === "int64" ? BigInt64Array.from(values, BigInt) : ARRAYS[entry.dtype].from(values);
    found[entry.name] = { data, dims: [seeds.length, ...entry.shape.slice(1)], type: entry.dtype };
  }
  return found;
}

/** The arrays of an uncompressed .npz file, as numpy.savez writes it. */
function readNpz(path) {
  const file = readFileSync(path);
  let end = file.length - 22;
  while (end > 0 && file.readUInt32LE(end) !== 0x06054b50) end -= 1;
  let at = file.readUInt32LE(end + 16);
  const found = {};
  for (let left = file.readUInt16LE(end + 10); left > 0; left -= 1) {
    const [length, extra, comment] = [28, 30, 32].map((place) => file.readUInt16LE(at + place));
    if (file.readUInt16LE(at + 10) !== 0) fail(`${path} is compressed; expected numpy.savez`);
    const local = file.readUInt32LE(at + 42);
    const start = local + 30 + file.readUInt16LE(local + 26) + file.readUInt16LE(local + 28);
    const name = file.toString("utf8", at + 46, at + 46 + length).replace(/\.npy$/, "");
    found[name] = readNpy(file.subarray(start, start + file.readUInt32LE(at + 24)));
    at += 46 + length + extra + comment;
  }
  return found;
}

function readNpy(bytes) {
  const start = 10 + bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", 10, start);
  const kind = CODES[/'descr': '([^']+)'/.exec(header)[1]];
  const dims = /'shape': \(([^)]*)\)/.exec(header)[1].split(",").filter((part) => part.trim()).map(Number);
  const body = Uint8Array.from(bytes.subarray(start));
  return { data: new kind(body.buffer), dims, type: kind === Float32Array ? "float32" : "int64" };
}

/** A PNG of one picture of an output in [-1, 1], shape (N, C, H, W). */
function png(pictures, index) {
  const [, channels, height, width] = pictures.dims;
  const rows = Buffer.alloc(height * (1 + width * channels));
  for (let c = 0; c < channels; c += 1)
    for (let y = 0; y < height; y += 1)
      for (let x = 0; x < width; x += 1) {
        const value = pictures.data[((index * channels + c) * height + y) * width + x];
        rows[y * (1 + width * channels) + 1 + x * channels + c] = Math.min(255, Math.max(0, Math.round((value + 1) * 127.5)));
      }
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, channels === 3 ? 2 : 0], 8);
  const signature = Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]);
  return Buffer.concat([signature, chunk("IHDR", header), chunk("IDAT", deflateSync(rows)), chunk("IEND", Buffer.alloc(0))]);
}

function chunk(name, body) {
  const content = Buffer.concat([Buffer.from(name), body]);
  let crc = ~0;
  for (const byte of content) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1;
  }
  const [size, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  size.writeUInt32BE(body.length);
  sum.writeUInt32BE(~crc >>> 0);
  return Buffer.concat([size, content, sum]);
}

const { values: given } = parseArgs({
  options: { seeds: { type: "string", default: "0-3" }, label: { type: "string" }, out: { type: "string", default: "pictures" }, golden: { type: "boolean" } },
});
const record = JSON.parse(readFileSync(join(HERE, "release.json"), "utf8"));
const { contract, golden } = record;
const label = given.label === undefined ? undefined : contract.class_names.indexOf(given.label);
if (label === -1) fail(`--label is ${given.label}; this model has ${contract.class_names.slice(0, 5).join(", ") || "no classes"}`);
const seeds = given.golden ? golden.seeds : seedsOf(given.seeds);
const ort = await import("onnxruntime-node").catch(() => fail("onnxruntime-node is not here; `npm install --ignore-scripts`"));
const session = await ort.InferenceSession.create(join(HERE, record.model.file));
const known = given.golden ? readNpz(join(HERE, golden.file)) : inputsOf(contract, seeds, label);
const feeds = Object.fromEntries(session.inputNames.map((name) => [name, new ort.Tensor(known[name].type, known[name].data, known[name].dims)]));
const { pictures } = await session.run(feeds);
mkdirSync(given.out, { recursive: true });
seeds.forEach((seed, i) => writeFileSync(join(given.out, `seed-${String(seed).padStart(6, "0")}.png`), png(pictures, i)));
console.log(`${seeds.length} pictures in ${given.out}${given.golden ? "" : "; these seeds are not those of generate.py"}`);
if (given.golden) {
  const tolerance = golden.tolerance.CPUExecutionProvider;
  const largest = pictures.data.reduce((worst, value, i) => Math.max(worst, Math.abs(value - known.pictures.data[i])), 0);
  console.log(`they differ from golden.npz by at most ${largest.toExponential(1)} (tolerance ${tolerance})`);
  if (!(largest <= tolerance)) process.exit(1);
}
