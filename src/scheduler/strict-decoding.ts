// Configuration decoded strictly: a value is held against a shape, and every field that is not known or of another type is
// named by its path. Pure. Upstream counterpart: strict decoding in k8s.io/apimachinery/pkg/runtime/serializer.
import { AppError } from "#base/errors.ts";
import { parseDurationNanoseconds } from "#model/duration.ts";

export type Shape = "string" | "int" | "bool" | "duration" | "bytes" | "any" | { readonly list: Shape } | Fields;
interface Fields {
  readonly fields: Readonly<Record<string, Shape>>;
}
export const listOf = (list: Shape) => ({ list });
export const fields = (of: Readonly<Record<string, Shape>>): Fields => ({ fields: of });

/** The value as the shape has it; rejects naming every field that is not known or of another type. */
export function strictly(value: unknown, wanted: Shape, root = ""): unknown {
  const unknown: string[] = [];
  const wrong: string[] = [];
  const walk = (one: unknown, as: Shape, path: string): unknown => {
    if (as === "any") return one;
    const fail = (what: string) => void wrong.push(`${path}: Invalid value: ${show(one)}: must be ${what}`);
    if (as === "string" || as === "bytes") {
      if (typeof one !== "string") return fail("a string");
      if (as === "string") return one;
      const bytes = Buffer.from(one, "base64");
      return bytes.length === 0 && one !== "" ? fail("base64") : bytes.toString("utf8");
    }
    if (as === "bool") return typeof one === "boolean" ? one : fail("a boolean");
    if (as === "int") {
      const number = typeof one === "bigint" ? Number(one) : one;
      return Number.isSafeInteger(number) ? number : fail("an integer");
    }
    if (as === "duration") {
      try {
        return parseDurationNanoseconds(String(one)) / 1e6;
      } catch {
        // Told with the others.
        return fail("a duration such as 5s");
      }
    }
    if ("list" in as) {
      if (!Array.isArray(one)) return fail("a list");
      return one.map((item, i) => walk(item, as.list, `${path}[${i}]`));
    }
    if (typeof one !== "object" || one === null || Array.isArray(one)) return fail("an object");
    const out: Record<string, unknown> = {};
    for (const [key, item] of Object.entries(one)) {
      const at = path === "" ? key : `${path}.${key}`;
      if (!Object.hasOwn(as.fields, key)) unknown.push(at);
      else if (item !== null) out[key] = walk(item, as.fields[key]!, at);
    }
    return out;
  };
  const out = walk(value, wanted, root);
  if (unknown.length > 0) {
    throw refusedConfiguration([
      `strict decoding error: ${unknown.map((path) => `unknown field "${path}"`).join(", ")}`,
    ]);
  }
  if (wrong.length > 0) throw refusedConfiguration(wrong);
  return out;
}

const show = (value: unknown): string => JSON.stringify(typeof value === "bigint" ? Number(value) : value) ?? "null";

export const refusedConfiguration = (problems: readonly string[]): AppError =>
  new AppError("SCHEDULER_CONFIGURATION", problems.length === 1 ? problems[0]! : `[${problems.join(", ")}]`);
