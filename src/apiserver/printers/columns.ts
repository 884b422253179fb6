// Server-side tables (`kubectl get`): one list of columns per kind, in tables.ts.
import type { ApiObject } from "#model/object.ts";

export interface Column<T extends ApiObject = ApiObject> {
  readonly name: string;
  readonly type: "string" | "integer" | "number" | "boolean" | "date";
  /** "name" for the name column. */
  readonly format?: string;
  readonly description: string;
  /** 0: always shown; 1: only with -o wide. */
  readonly priority: number;
  /** `nowMs` is for ages. */
  value(object: T, nowMs: number): string | number | boolean | null;
}
