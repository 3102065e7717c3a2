// Reads texts from standard input, a JSON list; writes what the page's reader makes of each: names and colours, or a reason.

import { readFileSync } from "node:fs";
import { parseMetadata } from "../../export/web/model_file.mjs";

const verdicts = JSON.parse(readFileSync(0, "utf8")).map((text) => {
  try {
    const { names, colors } = parseMetadata(text);
    return { names, colors };
  } catch (error) {
    return { reason: error.message };
  }
});
process.stdout.write(JSON.stringify(verdicts));
