// What an ONNX file says of itself: the metadata that `flexunet export` has put into it.
// The runtime reads it by the same rules and in the same words; tests/export/metadata_cases.json holds what both must say.

import { parseSteps } from "./postprocess.mjs";

const METADATA_FIELD = 14; // of the model: pairs of key and value
const KEY = "flexunet";
// of the first one the classes stand in an object, which JavaScript puts into an order of its own; the third has steps
// behind the network
const FORMAT = 3;
const MAX_CLASSES = 256;
const MOST_CHARACTERS = 1_000_000;
const LONGEST_NAME = 200;
const LARGEST_SIDE = 65_536;
const DEEPEST = 100;
const STRING = /"(?:[^"\\]|\\.)*"/gs;
// control characters, ends of lines, changes of direction, halves of letters
const HARMFUL = /[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]/u;
const FOREIGN = "was not exported by flexunet: it does not name its classes";

/** Read the metadata of an exported model; an error says what is wrong with a file that has none. */
export function readMetadata(bytes) {
  return parseMetadata(findProperty(bytes) ?? "");
}

/** Read the JSON that stands in a model; the message of an error is the end of a sentence about the file. */
export function parseMetadata(text) {
  const content = parse(text);
  const number = own(content, "format") ?? 1;
  if (!isWhole(number, 1, Infinity) || number > FORMAT) throw new Error("is of a format that this program does not know; update it");
  const classes = number > 1 ? own(content, "classes") : ofObject(own(content, "rgb_map"), text);
  if (!Array.isArray(classes)) throw new Error(FOREIGN);
  if (classes.length < 2 || classes.length > MAX_CLASSES) throw new Error(`names ${classes.length} classes; expected 2 to ${MAX_CLASSES}`);
  for (const item of classes) {
    if (!Array.isArray(item) || item.length !== 2) throw new Error(FOREIGN);
    const [name, color] = item;
    const length = typeof name === "string" ? [...name].length : 0;
    if (length < 1 || length > LONGEST_NAME || HARMFUL.test(name)) {
      throw new Error(`has a class whose name is no plain text of 1 to ${LONGEST_NAME} letters`);
    }
    if (!Array.isArray(color) || color.length !== 3 || !color.every((level) => isWhole(level, 0, 255))) {
      throw new Error("has a class whose colour is not three whole numbers of 0 to 255");
    }
  }
  if (new Set(classes.map(([name]) => name)).size < classes.length) throw new Error("names a class twice");
  const channels = own(content, "in_channels");
  if (channels !== undefined && channels !== 1 && channels !== 3) throw new Error("takes images of other channels than R, G, B or grey");
  const imageSize = size(content, "image_size");
  if (imageSize === null) throw new Error(`has an image_size that is no height and width of 1 to ${LARGEST_SIDE}`);
  const names = classes.map(([name]) => name);
  return {
    names,
    colors: classes.map(([, color]) => color),
    imageSize,
    fixedSize: size(content, "fixed_size"),
    imageWindow: window(content, "image_window"),
    volumeWindow: window(content, "volume_window"),
    steps: parseSteps(own(content, "postprocessing"), names),
  };
}

function parse(text) {
  if (!text || [...text].length > MOST_CHARACTERS || depth(text) > DEEPEST) throw new Error(FOREIGN);
  let content;
  try {
    content = JSON.parse(text, (_, value) => (typeof value === "number" && !Number.isFinite(value) ? refuse() : value));
  } catch {
    throw new Error(FOREIGN);
  }
  if (typeof content !== "object" || content === null || Array.isArray(content)) throw new Error(FOREIGN);
  return content;
}

function refuse() {
  throw new Error(FOREIGN);
}

function depth(text) {
  let [deepest, now] = [0, 0];
  for (const bracket of text.replace(STRING, "").match(/[[\]{}]/g) ?? []) {
    now += "[{".includes(bracket) ? 1 : -1;
    deepest = Math.max(deepest, now);
  }
  return deepest;
}

/** A key of the file, never one that all objects have. */
function own(content, key) {
  return Object.hasOwn(content, key) ? content[key] : undefined;
}

/** The classes of an object in the order of the text: JavaScript would put "2" before "lung". */
function ofObject(rgbMap, text) {
  if (typeof rgbMap !== "object" || rgbMap === null || Array.isArray(rgbMap)) return null;
  const order = new Set();
  const scanner = new Scanner(text);
  scanner.object((key) => (key === "rgb_map" ? (order.clear(), scanner.object((name) => (order.add(name), scanner.value()))) : scanner.value()));
  return [...order].map((name) => [name, rgbMap[name]]);
}

/** Walks over a text that JSON.parse has found to be JSON. */
class Scanner {
  constructor(text) {
    this.text = text;
    this.at = 0;
  }

  /** Walk over a value; of an object `member` is called with each key and must walk over what it names. */
  object(member) {
    this.#space();
    if (this.text[this.at] !== "{") return this.value();
    this.at += 1;
    for (this.#space(); this.text[this.at] !== "}"; this.#space()) {
      if (this.text[this.at] === ",") this.at += 1;
      this.#space();
      const from = this.at;
      this.value();
      const key = JSON.parse(this.text.slice(from, this.at));
      this.#space();
      this.at += 1; // the colon
      member(key);
    }
    this.at += 1;
    return undefined;
  }

  value() {
    this.#space();
    let depth = 0;
    do {
      const letter = this.text[this.at];
      if (letter === '"') this.#string();
      else if (letter === "{" || letter === "[") (depth += 1, (this.at += 1));
      else if (letter === "}" || letter === "]") (depth -= 1, (this.at += 1));
      else if (depth) this.at += 1;
      else while (this.at < this.text.length && !",]}: \t\r\n".includes(this.text[this.at])) this.at += 1;
    } while (depth);
  }

  #string() {
    for (this.at += 1; this.text[this.at] !== '"'; this.at += 1) if (this.text[this.at] === "\\") this.at += 1;
    this.at += 1;
  }

  #space() {
    while (" \t\r\n".includes(this.text[this.at] ?? "x")) this.at += 1;
  }
}

function isWhole(value, low, high) {
  return Number.isInteger(value) && value >= low && value <= high;
}

function size(content, key) {
  const found = own(content, key) ?? null;
  if (found === null) return null;
  if (!Array.isArray(found) || found.length !== 2 || !found.every((side) => isWhole(side, 1, LARGEST_SIDE))) {
    throw new Error(`has ${key[0] === "f" ? "a" : "an"} ${key} that is no height and width of 1 to ${LARGEST_SIDE}`);
  }
  return found;
}

function window(content, key) {
  const found = own(content, key) ?? null;
  if (found === null) return null;
  const isFinite = (value) => typeof value === "number" && Math.abs(value) <= 1e300;
  if (!Array.isArray(found) || found.length !== 2 || !found.every(isFinite) || !(found[0] < found[1])) {
    throw new Error(`has ${key[0] === "v" ? "a" : "an"} ${key} that is no lowest and highest value`);
  }
  return found;
}

function findProperty(bytes) {
  const reader = new Reader(bytes);
  while (!reader.ended) {
    const [field, value] = reader.next();
    if (field !== METADATA_FIELD || !(value instanceof Uint8Array)) continue;
    const pair = new Reader(value);
    const found = {};
    while (!pair.ended) {
      const [part, content] = pair.next();
      if (content instanceof Uint8Array) found[part] = content;
    }
    if (found[1] && decodeText(found[1]) === KEY) return found[2] ? decodeText(found[2]) : null;
  }
  return null;
}

function decodeText(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Error(FOREIGN);
  }
}

/** Walks over the fields of a protobuf message. */
class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  get ended() {
    return this.at >= this.bytes.length;
  }

  next() {
    const tag = this.#number();
    const [field, wire] = [Math.floor(tag / 8), tag % 8];
    if (wire === 0) return [field, this.#number()];
    if (wire === 1) return [field, this.#take(8).length];
    if (wire === 5) return [field, this.#take(4).length];
    if (wire === 2) return [field, this.#take(this.#number())];
    throw new Error("is no ONNX file, or only a part of one");
  }

  #number() {
    let value = 0;
    for (let shift = 0; shift < 70; shift += 7) {
      const [byte] = this.#take(1);
      value += (byte & 127) * 2 ** shift;
      if (byte < 128) return value;
    }
    throw new Error("is no ONNX file, or only a part of one");
  }

  #take(length) {
    if (length > this.bytes.length - this.at) throw new Error("is no ONNX file, or only a part of one");
    this.at += length;
    return this.bytes.subarray(this.at - length, this.at);
  }
}
