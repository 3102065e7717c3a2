// What is done with a mask behind the network: small parts of a class removed, holes filled; as the runtime does it.

const MOST_STEPS = 1000;
const LARGEST_AREA = 2 ** 31;

/** Read steps from the metadata of a model; the message of an error is the end of a sentence about the file. */
export function parseSteps(value, names) {
  if (value === undefined || value === null) return [];
  const wrong = () => new Error("has a postprocessing that is no list of steps for its classes");
  if (!Array.isArray(value) || value.length > MOST_STEPS) throw wrong();
  return value.map((item) => {
    if (typeof item !== "object" || item === null || Array.isArray(item)) throw wrong();
    const kind = Object.hasOwn(item, "do") ? item.do : undefined;
    const label = Object.hasOwn(item, "class") ? item.class : undefined;
    const pixels = Object.hasOwn(item, "pixels") ? item.pixels : 0;
    const index = names.indexOf(label);
    const whole = Number.isInteger(pixels) && pixels >= 0 && pixels <= LARGEST_AREA;
    if (!["largest", "smallest", "fill"].includes(kind) || index < 1 || !whole) throw wrong();
    return { index, kind, pixels };
  });
}

/** Apply steps to a mask of rows of so many pixels; pixels that they remove become background. */
export function postprocess(mask, width, steps) {
  const done = Uint8Array.from(mask);
  for (const { index, kind, pixels } of steps) {
    const parts = findParts(done, width, kind === "fill" ? (found) => found !== index : (found) => found === index, kind !== "fill");
    const largest = parts.reduce((most, part) => (part.length > (most?.length ?? 0) ? part : most), null);
    for (const part of parts) {
      if (kind === "fill") {
        const height = done.length / width;
        const onRim = (at) => at < width || at >= width * (height - 1) || at % width === 0 || at % width === width - 1;
        if (!part.some(onRim)) for (const at of part) if (done[at] === 0) done[at] = index;
      } else if (kind === "smallest" ? part.length < pixels : part !== largest) {
        for (const at of part) done[at] = 0;
      }
    }
  }
  return done;
}

/** The connected parts of the pixels that are wanted, in the order of their first pixels. */
function findParts(mask, width, wanted, corners) {
  const seen = new Uint8Array(mask.length);
  const parts = [];
  for (let first = 0; first < mask.length; first++) {
    if (seen[first] || !wanted(mask[first])) continue;
    seen[first] = 1;
    const part = [first];
    for (let i = 0; i < part.length; i++) {
      const [x, y] = [part[i] % width, Math.floor(part[i] / width)];
      for (let dy = -1; dy <= 1; dy++) {
        for (let dx = -1; dx <= 1; dx++) {
          if (!corners && dx && dy) continue;
          const at = (y + dy) * width + x + dx;
          if (x + dx < 0 || x + dx >= width || at < 0 || at >= mask.length || seen[at] || !wanted(mask[at])) continue;
          seen[at] = 1;
          part.push(at);
        }
      }
    }
    parts.push(part);
  }
  return parts;
}
