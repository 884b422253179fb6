// PATCH: which kind of patch a body is, and its application to the current object in the asked version. What comes out
// is bytes again, so that it passes the same strict decoding as a PUT. Upstream counterpart: endpoints/handlers/patch.go.

import { messageOf } from "#base/errors.ts";
import { UndecodableError } from "#model/decode.ts";
import type { UnknownObject } from "#model/object.ts";
import { applyJsonPatch } from "#model/patch/json-patch.ts";
import { applyMergePatch } from "#model/patch/merge-patch.ts";
import { applyStrategicMerge } from "#model/patch/strategic-merge.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import { ApiError, badRequest, fieldInvalid, invalid, unsupportedMediaType } from "#model/status.ts";

export type PatchKind = "json" | "merge" | "strategic";

type ContentKind = PatchKind | "apply" | "apply-cbor";

const kinds: Readonly<Record<string, ContentKind>> = {
  "application/json-patch+json": "json",
  "application/merge-patch+json": "merge",
  "application/strategic-merge-patch+json": "strategic",
  "application/apply-patch+yaml": "apply",
  "application/apply-patch+cbor": "apply-cbor",
};
export function patchKind(contentType: string | undefined, info: ResourceInfo, hasCbor: boolean): ContentKind {
  const type = (contentType ?? "").split(";")[0]!.trim().toLowerCase();
  const isOffered = (kind: ContentKind | undefined) =>
    (kind !== "strategic" || info.type !== "") && (kind !== "apply-cbor" || hasCbor);
  const kind = Object.hasOwn(kinds, type) ? kinds[type] : undefined;
  if (!kind || !isOffered(kind)) {
    const accepted = Object.keys(kinds).filter((name) => isOffered(kinds[name]));
    throw unsupportedMediaType(
      `the body of the request was in an unknown format - accepted media types include: ${accepted.join(", ")}`,
    );
  }
  return kind;
}

/** The patch body as JSON. */
export function parsePatch(kind: PatchKind, body: Uint8Array): unknown {
  let patch: unknown;
  try {
    patch = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(body));
  } catch (error) {
    throw badRequest(`error decoding patch: ${messageOf(error)}`);
  }
  const isObject = typeof patch === "object" && patch !== null && !Array.isArray(patch);
  if (kind !== "json" && !isObject) {
    throw badRequest("error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}");
  }
  return patch;
}

/** `current` is shared and stays as it is; the result may share parts with it. */
export function applyPatch(kind: PatchKind, info: ResourceInfo, current: UnknownObject, patch: unknown): UnknownObject {
  try {
    switch (kind) {
      case "json":
        return applyJsonPatch(current, patch as never) as UnknownObject;
      case "merge":
        return applyMergePatch(current, patch) as UnknownObject;
      case "strategic":
        return applyStrategicMerge(info.type, current, patch) as UnknownObject;
    }
  } catch (error) {
    if (error instanceof ApiError) throw error;
    // As upstream: a patch that does not fit the object is the client's mistake, 422.
    throw new ApiError(
      422,
      "Invalid",
      `the server rejected our request due to an error in our request: ${messageOf(error)}`,
      {},
    );
  }
}

/** Decodes what a patch made. What does not fit its type is the patch's mistake, and shown as upstream does: 422. */
export function decodePatched(
  kind: PatchKind,
  patch: unknown,
  patched: UnknownObject,
  decode: (patched: UnknownObject) => UnknownObject,
): UnknownObject {
  try {
    return decode(patched);
  } catch (error) {
    if (!(error instanceof UndecodableError)) throw error;
    const shown = kind === "strategic" ? goText(patch) : JSON.stringify(patched);
    const why = kind === "strategic" ? conversionError(error.why) : error.why;
    throw invalid("", "", "", [fieldInvalid("patch", shown, why)]);
  }
}

/** Strategic patches are applied to maps and converted, not decoded, and that converter has words of its own. */
function conversionError(why: string): string {
  const [, from, to] = /^json: cannot unmarshal (\w+)(?: \S+)? into Go struct field \S+ of type (\S+)$/.exec(why) ?? [];
  if (!from || !to) return why;
  if (to.startsWith("[]")) return `cannot restore slice from ${from}`;
  if (to.startsWith("map[")) return `cannot restore map from ${from}`;
  return /^(u?int\d*|string|bool|float\d+)$/.test(to) ? `unrecognized type: ${to}` : why;
}

/** As Go prints maps and slices. */
function goText(value: unknown): string {
  if (value === null) return "<nil>";
  if (Array.isArray(value)) return `[${value.map(goText).join(" ")}]`;
  if (typeof value !== "object") return String(value);
  const members = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  return `map[${members.map(([key, member]) => `${key}:${goText(member)}`).join(" ")}]`;
}
