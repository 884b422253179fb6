// Adds paths and definitions to the v2 document of the build without reading it: megabytes that nobody should parse for a
// few kinds more.
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import type { Json } from "#model/openapi.ts";
import { encodeOpenApiV2 } from "#model/openapi-v2-protobuf.ts";

export type V2Form = "v2.json" | "v2.pb";
/** Members of `paths` and of `definitions`. */
export type V2Addition = Readonly<Record<string, Json>>;

export const isV2Form = (name: string): name is V2Form => name === "v2.json" || name === "v2.pb";

export function addToV2(form: V2Form, document: Uint8Array, added: V2Addition): Uint8Array {
  // Messages one behind the other are one message.
  if (form === "v2.pb") return Buffer.concat([document, encodeOpenApiV2(added)]);
  return Buffer.from(splice(Buffer.from(document).toString("utf8"), added));
}

/** As OpenAPI documents are known by. */
export const hashOf = (text: string): string => createHash("sha512").update(text).digest("hex").toUpperCase();

/** Members added to objects of the top level, whose text starts as JSON.stringify writes it. */
function splice(text: string, added: V2Addition): string {
  let out = text;
  for (const [member, values] of Object.entries(added)) {
    const start = `"${member}":{`;
    const at = out.indexOf(start);
    const inner = JSON.stringify(values).slice(1, -1);
    if (at < 0 || inner === "") continue;
    const from = at + start.length;
    out = `${out.slice(0, from)}${inner}${out[from] === "}" ? "" : ","}${out.slice(from)}`;
  }
  return out;
}
