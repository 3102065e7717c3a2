// Reads masks and steps from standard input, as JSON; writes what the page makes of each.

import { readFileSync } from "node:fs";
import { parseSteps, postprocess } from "../../export/web/postprocess.mjs";

const done = JSON.parse(readFileSync(0, "utf8")).map(({ mask, width, steps, names }) => {
  try {
    return Array.from(postprocess(Uint8Array.from(mask), width, parseSteps(steps, names)));
  } catch (error) {
    return error.message;
  }
});
process.stdout.write(JSON.stringify(done));
