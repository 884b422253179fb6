// Types of the checker: what they are called in messages, and which can stand for which. Type parameters of overloads
// are bound in a Bindings while candidates are tried. Upstream counterpart: cel-go checker/types.go, format.go.

type Kind =
  | "bool"
  | "bytes"
  | "double"
  | "duration"
  | "dyn"
  | "error"
  | "int"
  | "list"
  | "map"
  | "null"
  | "object"
  | "opaque"
  | "param"
  | "string"
  | "timestamp"
  | "type"
  | "uint";

export interface CelType {
  readonly kind: Kind;
  /** Of objects, opaque types and parameters; of others the name of the type as an identifier. */
  readonly name: string;
  readonly params: readonly CelType[];
  /** Of objects. */
  readonly fields?: ReadonlyMap<string, CelType>;
}

const simple = (kind: Kind, name: string = kind): CelType => ({ kind, name, params: [] });
export const boolType = simple("bool");
export const bytesType = simple("bytes");
export const doubleType = simple("double");
export const durationType = simple("duration", "google.protobuf.Duration");
export const dynType = simple("dyn");
export const errorType = simple("error");
export const intType = simple("int");
export const nullType = simple("null", "null_type");
export const stringType = simple("string");
export const timestampType = simple("timestamp", "google.protobuf.Timestamp");
export const uintType = simple("uint");
export const listOf = (item: CelType): CelType => ({ kind: "list", name: "list", params: [item] });
export const mapOf = (key: CelType, value: CelType): CelType => ({ kind: "map", name: "map", params: [key, value] });
export const typeOfType = (of?: CelType): CelType => ({ kind: "type", name: "type", params: of ? [of] : [] });
export const paramType = (name: string): CelType => simple("param", name);
const opaqueType = (name: string, ...params: CelType[]): CelType => ({ kind: "opaque", name, params });
export const optionalOf = (value: CelType): CelType => opaqueType("optional_type", value);
export const objectType = (name: string, fields: ReadonlyMap<string, CelType>): CelType => ({
  kind: "object",
  name,
  params: [],
  fields,
});

export const isOptional = (type: CelType): boolean => type.kind === "opaque" && type.name === "optional_type";
export const isDynOrError = (type: CelType): boolean => type.kind === "dyn" || type.kind === "error";

const shownKinds: ReadonlyMap<Kind, string> = new Map([
  ["duration", "duration"],
  ["error", "!error!"],
  ["null", "null"],
  ["timestamp", "timestamp"],
]);

/** As messages name it. */
export function formatType(type: CelType): string {
  const shown = shownKinds.get(type.kind);
  if (shown !== undefined) return shown;
  if (type.params.length === 0) return type.name;
  return `${type.name}(${type.params.map(formatType).join(", ")})`;
}
export function formatSignature(args: readonly CelType[], isMember: boolean): string {
  const target = isMember ? `${formatType(args[0]!)}.` : "";
  return `${target}(${args
    .slice(isMember ? 1 : 0)
    .map(formatType)
    .join(", ")})`;
}

export function sameType(a: CelType, b: CelType): boolean {
  if (a === b) return true;
  if (a.kind !== b.kind || a.name !== b.name || a.params.length !== b.params.length) return false;
  return a.params.every((param, index) => sameType(param, b.params[index]!));
}

/**
 * Types share their parts, so that a short expression can have a type of exponential size: `.map(x, {x: x})` doubles it.
 * No walk of one goes further than this.
 */
const maxTypeNodes = 5000;
export class TypeTooLarge extends Error {}
/** Throws TypeTooLarge. */
export function checkSize(type: CelType): void {
  let left = maxTypeNodes;
  const visit = (part: CelType): void => {
    if (--left < 0) throw new TypeTooLarge();
    part.params.forEach(visit);
  };
  visit(type);
}

/** What type parameters stand for. */
export class Bindings {
  readonly #bound = new Map<string, CelType>();
  #steps = 0;
  /** What was bound before, to take back a failed attempt. */
  readonly #trail: (readonly [string, CelType | undefined])[] = [];

  /** Whether values of `from` may stand where `to` are wanted; binds parameters only where they may. */
  assign(from: readonly CelType[], to: readonly CelType[]): boolean {
    this.#steps = 0;
    this.#trail.length = 0;
    if (this.#areAssignable(from, to)) return true;
    for (const [name, before] of this.#trail.reverse()) {
      if (before) this.#bound.set(name, before);
      else this.#bound.delete(name);
    }
    return false;
  }
  #set(name: string, type: CelType): void {
    this.#trail.push([name, this.#bound.get(name)]);
    this.#bound.set(name, type);
  }

  /** `type` without bound parameters; with `frees` unbound ones become dyn. */
  substitute(type: CelType, frees = false): CelType {
    this.#steps = 0;
    return this.#substitute(type, frees);
  }
  #substitute(type: CelType, frees: boolean): CelType {
    this.#step();
    if (type.kind === "param") {
      const bound = this.#bound.get(type.name);
      if (bound) return this.#substitute(bound, frees);
      return frees ? dynType : type;
    }
    if (type.params.length === 0) return type;
    const params = type.params.map((param) => this.#substitute(param, frees));
    return { kind: type.kind, name: type.name, params };
  }
  #step(): void {
    if (++this.#steps > maxTypeNodes) throw new TypeTooLarge();
  }

  #isAssignable(from: CelType, to: CelType): boolean {
    this.#step();
    if (to.kind === "param") {
      const { valid, known } = this.#bind(from, to);
      if (valid) return true;
      if (known) return false;
    }
    if (from.kind === "param") return this.#bind(to, from).valid;
    if (isDynOrError(from) || isDynOrError(to)) return true;
    if (from.kind === "null") return to.kind === "null" || to.kind === "object" || to.kind === "opaque" || isTime(to);
    if (from.kind !== to.kind) return false;
    switch (from.kind) {
      case "opaque":
        return from.name === to.name && this.#areAssignable(from.params, to.params);
      case "list":
      case "map":
        return this.#areAssignable(from.params, to.params);
      case "object":
        return from.name === to.name;
      default:
        return true;
    }
  }
  #areAssignable(from: readonly CelType[], to: readonly CelType[]): boolean {
    return from.length === to.length && from.every((type, index) => this.#isAssignable(type, to[index]!));
  }

  #bind(type: CelType, param: CelType): { valid: boolean; known: boolean } {
    const bound = this.#bound.get(param.name);
    if (bound) {
      if (sameType(type, bound)) return { valid: true, known: true };
      if (!this.#isAssignable(type, bound)) return { valid: false, known: true };
      if (type.kind !== "param") this.#set(param.name, moreGeneral(type, bound));
      return { valid: true, known: true };
    }
    if (this.#occursIn(param, type)) return { valid: sameType(param, type), known: false };
    this.#set(param.name, type);
    return { valid: true, known: false };
  }

  #occursIn(param: CelType, type: CelType): boolean {
    this.#step();
    if (type.kind === "param") {
      if (type.name === param.name) return true;
      const bound = this.#bound.get(type.name);
      return bound !== undefined && this.#occursIn(param, bound);
    }
    return type.params.some((inner) => this.#occursIn(param, inner));
  }
}

const isTime = (type: CelType): boolean => type.kind === "timestamp" || type.kind === "duration";

export const moreGeneral = (a: CelType, b: CelType): CelType => (isLessSpecific(a, b) ? a : b);
function isLessSpecific(a: CelType, b: CelType): boolean {
  if (a.kind === "dyn" || a.kind === "param") return true;
  if (b.kind === "dyn" || b.kind === "param") return false;
  if (a.kind !== b.kind || a.name !== b.name || a.params.length !== b.params.length) return false;
  return a.kind === "type" || a.params.every((param, index) => isLessSpecific(param, b.params[index]!));
}

/** Types that expressions can name. */
export const namedTypes: ReadonlyMap<string, CelType> = new Map(
  [
    boolType,
    bytesType,
    doubleType,
    durationType,
    intType,
    listOf(dynType),
    mapOf(dynType, dynType),
    nullType,
    stringType,
    timestampType,
    typeOfType(),
    uintType,
    optionalOf(paramType("V")),
    opaqueType("kubernetes.URL"),
    opaqueType("kubernetes.Quantity"),
    opaqueType("net.IP"),
    opaqueType("net.CIDR"),
    opaqueType("kubernetes.NamedFormat"),
  ].map((type) => [type.name, type]),
);

/** Reads `list(A)`, `map(string, dyn)`, `net.IP`; one capital letter is a parameter. For tables of declarations. */
export function parseType(text: string): CelType {
  let at = 0;
  const one = (): CelType => {
    const start = at;
    while (at < text.length && /[\w.?]/.test(text[at]!)) at++;
    const name = text.slice(start, at);
    const params: CelType[] = [];
    if (text[at] === "(") {
      do {
        at++;
        while (text[at] === " ") at++;
        params.push(one());
      } while (text[at] === ",");
      at++;
    }
    return named(name, params);
  };
  return one();
}
const plainTypes: ReadonlyMap<string, CelType> = new Map(
  [boolType, bytesType, doubleType, dynType, intType, stringType, uintType].map((type) => [type.name, type]),
);
function named(name: string, params: CelType[]): CelType {
  const plain = plainTypes.get(name);
  if (plain) return plain;
  if (name === "timestamp") return timestampType;
  if (name === "duration") return durationType;
  if (name === "list") return listOf(params[0]!);
  if (name === "map") return mapOf(params[0]!, params[1]!);
  if (name === "type") return typeOfType(params[0]);
  if (name === "optional") return optionalOf(params[0]!);
  return /^[A-Z]$/.test(name) ? paramType(name) : opaqueType(name, ...params);
}
