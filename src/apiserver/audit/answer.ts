// The object of an answer as the audit log tells of it: in the version that was asked for and whole, even where the client
// wanted a table. Upstream logs what it sends.
import type { UnknownObject } from "#model/object.ts";
import { groupVersion } from "#model/resource-info.ts";
import type { Status } from "#model/status.ts";
import type { Result, View } from "../endpoints/result.ts";
import type { Item } from "../registry/codec.ts";
import { fromStorage } from "../registry/convert.ts";
import { type AuditRecord, maxObjectBytes } from "./record.ts";

export function recordAnswer(record: AuditRecord, result: Result): void {
  if (result.type === "item") record.answered(result.item.key);
  if (result.type === "object" && result.object.kind === "Status") record.status(result.object as unknown as Status);
  if (record.wantsAnswer && result.type !== "raw" && result.type !== "watch" && result.type !== "connect") {
    record.responseObject(objectOf(result));
  }
}

/** Undefined: more than is kept. */
function objectOf(result: Exclude<Result, { type: "raw" | "watch" | "connect" }>): UnknownObject | undefined {
  switch (result.type) {
    case "compressed":
      return undefined;
    case "item":
      return shown(result.view, result.item);
    case "object":
      return result.object;
    case "list": {
      const { info } = result.view;
      const size = result.items.reduce((sum, { value }) => sum + value.length, 0);
      if (size > maxObjectBytes || result.more) return undefined;
      return {
        kind: `${info.kind}List`,
        apiVersion: groupVersion(info),
        metadata: result.metadata as UnknownObject["metadata"],
        items: result.items.map((item) => shown(result.view, item)),
      };
    }
    case "objects": {
      const { info, objects, isList } = result;
      if (!isList) return objects[0];
      return { kind: `${info.kind}List`, apiVersion: groupVersion(info), metadata: {}, items: [...objects] };
    }
  }
}

const shown = (view: View, item: Item): UnknownObject => fromStorage(view.info, view.storage.decode(item));
