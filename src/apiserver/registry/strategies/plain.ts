// Strategies that differ by flags only: kinds without surprises, and kinds whose status a client may not write through
// the main resource.
import type { ApiObject } from "#model/object.ts";
import type { Strategy } from "../../strategy.ts";

export interface PlainOptions {
  readonly hasGeneration?: boolean;
  readonly keepsGeneration?: boolean;
  readonly allowCreateOnUpdate?: boolean;
  readonly requireResourceVersion?: boolean;
  /** Field paths that a fieldSelector may name, with what an absent field counts as. */
  readonly selectable?: Readonly<Record<string, string | number | boolean>>;
  /** A client may create it with a status (nodes) but not change that by an update. */
  readonly keepsStatusOnUpdate?: boolean;
}

type WithStatus = ApiObject & { status?: unknown };

export function plain(options: PlainOptions): Strategy {
  const selectable = options.selectable ? selectorOf(options.selectable) : undefined;
  return {
    ...(options.hasGeneration ? { hasGeneration: true } : {}),
    ...(options.keepsGeneration ? { keepsGeneration: true } : {}),
    ...(options.allowCreateOnUpdate ? { allowCreateOnUpdate: true } : {}),
    ...(options.requireResourceVersion ? { requireResourceVersion: true } : {}),
    ...(selectable ? { selectableFields: selectable } : {}),
    ...(options.keepsStatusOnUpdate ? { prepareForUpdate: keepStatus } : {}),
  };
}

/** Drops the status on create (or sets `initial`) and keeps the old one on update. */
export function withStatus(options: PlainOptions & { readonly initial?: object }): Strategy {
  const initial = options.initial ?? {};
  return {
    ...plain(options),
    prepareForCreate(object: WithStatus) {
      object.status = structuredClone(initial);
    },
    prepareForUpdate: keepStatus,
  };
}

export function keepStatus(object: WithStatus, old: WithStatus): void {
  if (old.status === undefined) delete object.status;
  else object.status = old.status;
}

function selectorOf(fields: Readonly<Record<string, string | number | boolean>>) {
  const paths = Object.entries(fields).map(([path, absent]) => ({ path, keys: path.split("."), absent }));
  return (object: ApiObject): Record<string, string> => {
    const out: Record<string, string> = {};
    for (const { path, keys, absent } of paths) {
      let value: unknown = object;
      for (const key of keys) value = (value as Record<string, unknown> | undefined)?.[key];
      out[path] = String(value ?? absent);
    }
    return out;
  };
}
