// The OpenAPI documents as files beside the program (scripts/build/openapi.ts makes them). They are read when asked for
// and not kept: megabytes that most servers are asked for once a day.
import { hasCode } from "#base/errors.ts";
import { groupVersion } from "#model/resource-info.ts";
import { allResources } from "#model/resources.ts";
import { readAsset } from "#platform/assets.ts";
import type { OpenApiAssets } from "./serve.ts";

export function openApiAssets(): OpenApiAssets {
  const paths = allResources.map((info) => (info.group === "" ? `api/${info.version}` : `apis/${groupVersion(info)}`));
  return {
    v3: [...new Set(paths)].sort(),
    read(name) {
      try {
        return readAsset(`openapi/${name}`);
      } catch (error) {
        // A source checkout without a build has none; kubectl then validates nothing on its side.
        if (hasCode(error, "ENOENT")) return undefined;
        throw error;
      }
    },
  };
}
