// What an ONNX file says of itself: the metadata that `flexunet export` has put into it.

const METADATA_FIELD = 14; // of the model: pairs of key and value
const KEY = "flexunet";

/** Read the metadata of an exported model; an error says what is wrong with a file that has none. */
export function readMetadata(bytes) {
  const text = findProperty(bytes);
  if (text === null) throw new Error("was not exported by flexunet: it does not name its classes");
  const metadata = JSON.parse(text);
  const classes = Object.entries(metadata.rgb_map ?? {});
  const isColor = (c) => Array.isArray(c) && c.length === 3 && c.every((v) => Number.isInteger(v) && v >= 0 && v < 256);
  if (classes.length < 2 || classes.length > 256 || !classes.every(([, color]) => isColor(color))) {
    throw new Error("names no classes with colours");
  }
  return {
    names: classes.map(([name]) => name),
    colors: classes.map(([, color]) => color),
    fixedSize: metadata.fixed_size ?? null,
    imageWindow: metadata.image_window ?? null,
  };
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
      if (content instanceof Uint8Array) found[part] = new TextDecoder().decode(content);
    }
    if (found[1] === KEY) return found[2] ?? null;
  }
  return null;
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
