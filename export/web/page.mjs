// The page: a model and images in, masks over the images out. All of it happens in this browser.

import * as ort from "./node_modules/onnxruntime-web/dist/ort.wasm.min.mjs";
import { readMetadata } from "./model_file.mjs";
import { postprocess } from "./postprocess.mjs";

const MAX_PIXELS = 16e6;
const at = (id) => document.getElementById(id);
const [modelInput, imageInput, opacityInput, status, legend, results] = [
  "model", "images", "opacity", "status", "legend", "results",
].map(at);

ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
ort.env.wasm.numThreads = self.crossOriginIsolated ? navigator.hardwareConcurrency : 1; // threads need that isolation

let model = null; // session, names, colors, fixedSize
let queue = Promise.resolve(); // one thing at a time, in the order in which it was asked for
const shown = []; // functions that draw a result anew, when the tint changes

function say(text, bad = false) {
  status.textContent = text;
  status.classList.toggle("bad", bad);
}

async function openModel(name, bytes) {
  say(`Loading ${name}…`);
  try {
    const facts = readMetadata(bytes);
    if (facts.imageWindow) throw new Error("wants images of more than 8 bits, which browsers do not decode");
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    const outputs = session.outputNames;
    if (session.inputNames.join() !== "image" || !outputs.includes("mask") || outputs.some((name) => !["mask", "probabilities"].includes(name))) {
      throw new Error("has other inputs or outputs than flexunet exports; export it again");
    }
    model = { session, ...facts };
    legend.replaceChildren(...model.names.map((label, i) => legendItem(label, model.colors[i])));
    imageInput.disabled = false;
    say(`${name}: ready. Choose images.`);
  } catch (error) {
    say(`${name}: ${error.message}`, true);
  }
}

function legendItem(label, [r, g, b]) {
  const item = document.createElement("li");
  const swatch = document.createElement("canvas");
  [swatch.width, swatch.height] = [1, 1];
  const context = swatch.getContext("2d");
  context.fillStyle = `rgb(${r} ${g} ${b})`;
  context.fillRect(0, 0, 1, 1);
  item.append(swatch, label);
  return item;
}

/** Decode a file to pixels, as stored: no colour management, no premultiplied alpha; EXIF orientation applied. */
async function decode(file) {
  const options = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" };
  const bitmap = await createImageBitmap(file, options).catch(() => {
    throw new Error("is damaged, or no image that this browser reads");
  });
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) throw new Error(`${width}x${height} px is over the limit of ${MAX_PIXELS / 1e6} megapixels`);
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const pixels = new Uint8Array(width * height * 3);
  for (let i = 0, j = 0; j < pixels.length; i += 4, j += 3) {
    if (data[i + 3] !== 255) throw new Error("has transparent pixels; flatten it onto a background first");
    pixels[j] = data[i];
    pixels[j + 1] = data[i + 1];
    pixels[j + 2] = data[i + 2];
  }
  return { width, height, pixels };
}

async function predict(file) {
  if (!model) return;
  const used = model;
  const figure = document.createElement("figure");
  const caption = document.createElement("figcaption");
  figure.append(caption);
  results.prepend(figure);
  caption.textContent = `${file.name}: predicting…`;
  try {
    const { width, height, pixels } = await decode(file);
    if (used.fixedSize && (used.fixedSize[0] !== height || used.fixedSize[1] !== width)) {
      throw new Error(`is ${height}x${width} px; this model takes ${used.fixedSize.join("x")} alone`);
    }
    const began = performance.now();
    const image = new ort.Tensor("uint8", pixels, [1, height, width, 3]);
    const outputs = await used.session.run({ image }, ["mask"]);
    const seconds = ((performance.now() - began) / 1000).toFixed(2);
    check(outputs.mask, [1, height, width], used.names.length);
    const mask = postprocess(outputs.mask.data, width, used.steps);
    show(figure, caption, { name: file.name, width, height, pixels, mask, seconds, used });
    say("Done.");
  } catch (error) {
    figure.classList.add("bad");
    caption.textContent = `${file.name}: ${error.message}`;
  }
}

/** See that a mask is one of the classes that the model names: else colours would be those of others. */
function check(mask, shape, classes) {
  if (mask.type !== "uint8" || mask.dims.join() !== shape.join()) {
    throw new Error(`the model gives masks of shape (${mask.dims.join(", ")}) and type ${mask.type}, which are none`);
  }
  if (mask.data.some((index) => index >= classes)) {
    throw new Error(`the model names ${classes} classes, and its network has others; export it again`);
  }
}

function show(figure, caption, result) {
  const { name, width, height, pixels, mask, seconds, used } = result;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${name} with its classes tinted`);
  const draw = () => {
    const picture = new ImageData(width, height);
    const opacity = Number(opacityInput.value) / 100;
    for (let i = 0; i < mask.length; i++) {
      const share = mask[i] ? opacity : 0;
      const color = used.colors[mask[i]];
      for (let c = 0; c < 3; c++) picture.data[4 * i + c] = pixels[3 * i + c] * (1 - share) + color[c] * share;
      picture.data[4 * i + 3] = 255;
    }
    canvas.getContext("2d").putImageData(picture, 0, 0);
  };
  draw();
  shown.push(draw);
  const counts = new Array(used.names.length).fill(0);
  for (const index of mask) counts[index] += 1;
  const table = document.createElement("table");
  used.names.forEach((label, i) => {
    const row = table.insertRow();
    const head = document.createElement("th");
    head.textContent = label;
    row.append(head);
    row.insertCell().textContent = `${counts[i]} px`;
    row.insertCell().textContent = `${((100 * counts[i]) / mask.length).toFixed(1)} %`;
  });
  const save = document.createElement("button");
  save.type = "button";
  save.textContent = "Save the mask";
  save.addEventListener("click", () => saveMask(result));
  caption.textContent = `${name}: ${width}x${height} px in ${seconds} s`;
  figure.append(canvas, table, save);
  figure.dataset.counts = counts.join(" ");
}

async function saveMask({ name, width, height, mask, used }) {
  const canvas = new OffscreenCanvas(width, height);
  const picture = new ImageData(width, height);
  for (let i = 0; i < mask.length; i++) picture.data.set([...used.colors[mask[i]], 255], 4 * i);
  canvas.getContext("2d").putImageData(picture, 0, 0);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await canvas.convertToBlob({ type: "image/png" }));
  link.download = `${name.replace(/\.[^.]*$/, "")}_mask.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function take(files) {
  for (const file of files) {
    const isModel = file.name.endsWith(".onnx");
    queue = queue.then(async () => (isModel ? openModel(file.name, new Uint8Array(await file.arrayBuffer())) : predict(file)));
  }
}

modelInput.addEventListener("change", () => take(modelInput.files));
imageInput.addEventListener("change", () => take(imageInput.files));
opacityInput.addEventListener("input", () => shown.forEach((draw) => draw()));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("over");
});
document.addEventListener("dragleave", () => document.body.classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  take(event.dataTransfer.files);
});

// a model that lies beside the page is taken at once
const beside = await fetch("model.onnx").catch(() => null);
if (beside?.ok) await openModel("model.onnx", new Uint8Array(await beside.arrayBuffer()));
else say("Choose a model.");
