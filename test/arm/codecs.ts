// Codecs on 32 bits: every golden API object of Debian's Kubernetes packages decodes from protobuf to its JSON twin and
// survives a second trip; numbers above 2^31 and 2^53 and quantities keep their value.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { assert } from "#base/assert.ts";
import { decodeProtobuf, encodeProtobuf } from "#model/protobuf.ts";
import { addQuantities, canonicalQuantity } from "#model/quantity.ts";
import { allResources } from "#model/resources.ts";
import { parseJson } from "#wire/json.ts";

/** `data`: folder of `GROUP.VERSION.KIND.pb` and `.json` twins. */
export async function testCodecs(data: string): Promise<string> {
  let count = 0;
  for (const resource of allResources) {
    const group = resource.group === "" ? "core" : resource.group;
    const name = join(data, `${group}.${resource.version}.${resource.kind}`);
    let bytes: Uint8Array;
    try {
      bytes = readFileSync(`${name}.pb`);
    } catch {
      continue; // reviews of other packages have no golden object here
    }
    const { object } = decodeProtobuf(bytes, resource.type);
    const again = decodeProtobuf(encodeProtobuf(object, resource.type), resource.type).object;
    assert(JSON.stringify(again) === JSON.stringify(object), `${resource.kind}: a second trip changed it`);
    const twin = JSON.parse(readFileSync(`${name}.json`, "utf8")) as { metadata?: { generation?: number } };
    const generation = (object as { metadata?: { generation?: number } }).metadata?.generation;
    assert(generation === twin.metadata?.generation, `${resource.kind}: generation ${generation}`);
    count++;
  }
  assert(count > 40, `only ${count} golden objects found`);
  assert(parseJson("4294967297") === 4294967297, "JSON numbers above 32 bits");
  assert(canonicalQuantity("9223372036854775807") === "9223372036854775807", "quantities above 53 bits");
  assert(addQuantities("3Gi", "3Gi").toString() === "6Gi", "sums above 32 bits");
  return `codecs: ${count} golden objects`;
}
