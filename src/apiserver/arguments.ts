// What the API server can be told under kube-apiserver's flag names: `--kube-apiserver-arg NAME=VALUE`, as k3s has it.
// Pure: text in, values out; what is not known is refused, so that nobody believes in a setting that does nothing.
import { AppError } from "#base/errors.ts";
import { groupVersion } from "#model/resource-info.ts";
import { allResources, optionalApis } from "#model/resources.ts";
import { AuditArguments, type AuditOptions, auditFlags } from "./audit/options.ts";

export interface ApiArguments {
  /** The feature gate CBORServingAndStorage. */
  readonly cbor: boolean;
  /** The feature gate InPlacePodVerticalScaling. */
  readonly podResize: boolean;
  /** The feature gate MultiCIDRServiceAllocator: cluster addresses come from ServiceCIDRs and are kept as IPAddresses. */
  readonly multiCidrServices: boolean;
  /** runtime-config: group versions that are served beside those of the default. */
  readonly optionalApis: readonly string[];
  readonly maxReadsInFlight: number;
  readonly maxWritesInFlight: number;
  /** encryption-provider-config: a path. */
  readonly encryptionConfigFile: string | undefined;
  /** encryption-provider-config-automatic-reload. */
  readonly encryptionReload: boolean;
  readonly audit: AuditOptions;
}

type Plain = Omit<ApiArguments, "audit">;
type Changing = { -readonly [K in keyof Plain]: Plain[K] };

const gates: Readonly<Record<string, (value: boolean, into: Changing) => void>> = {
  CBORServingAndStorage(value, into) {
    into.cbor = value;
  },
  InPlacePodVerticalScaling(value, into) {
    into.podResize = value;
  },
  MultiCIDRServiceAllocator(value, into) {
    into.multiCidrServices = value;
  },
};

/** What a gate is of no use without. */
const neededApis: readonly { readonly gate: string; isOn(args: Plain): boolean; readonly api: string }[] = [
  { gate: "MultiCIDRServiceAllocator", isOn: (args) => args.multiCidrServices, api: "networking.k8s.io/v1beta1" },
];

const known: Readonly<Record<string, (text: string, into: Changing) => void>> = {
  "feature-gates"(text, into) {
    for (const part of text.split(",").filter((each) => each !== "")) {
      const [name = "", value = ""] = part.split("=");
      const gate = Object.hasOwn(gates, name) ? gates[name] : undefined;
      if (!gate) throw refused("feature-gates", `${JSON.stringify(name)} is none of ${Object.keys(gates).join(", ")}`);
      if (value !== "true" && value !== "false") throw refused("feature-gates", `${name} must be true or false`);
      gate(value === "true", into);
    }
  },
  "runtime-config"(text, into) {
    const on = new Set(into.optionalApis);
    for (const part of text.split(",").filter((each) => each !== "")) {
      const [name = "", value = "true"] = part.split("=");
      if (value !== "true" && value !== "false") throw refused("runtime-config", `${name} must be true or false`);
      if (Object.hasOwn(optionalApis, name)) {
        if (value === "true") on.add(name);
        else on.delete(name);
        continue;
      }
      const isServed = allResources.some((info) => groupVersion(info) === name);
      if (isServed && value === "true") continue;
      const optional = Object.keys(optionalApis).join(", ");
      const why = isServed ? "is always served" : `is none of those that can be turned on: ${optional}`;
      throw refused("runtime-config", `${JSON.stringify(name)} ${why}`);
    }
    into.optionalApis = [...on];
  },
  "max-requests-inflight"(text, into) {
    into.maxReadsInFlight = seats("max-requests-inflight", text);
  },
  "max-mutating-requests-inflight"(text, into) {
    into.maxWritesInFlight = seats("max-mutating-requests-inflight", text);
  },
  "encryption-provider-config"(text, into) {
    if (text === "") throw refused("encryption-provider-config", "the path of a file is expected");
    into.encryptionConfigFile = text;
  },
  "encryption-provider-config-automatic-reload"(text, into) {
    const name = "encryption-provider-config-automatic-reload";
    if (text !== "true" && text !== "false") throw refused(name, "must be true or false");
    into.encryptionReload = text === "true";
  },
};

/** More would be no bound of this process's memory: each may hold a body of 3 MiB. */
const mostSeats = 10_000;

export function parseApiArguments(args: readonly string[]): ApiArguments {
  const audit = new AuditArguments();
  const out: Changing = {
    ...{ cbor: false, podResize: false, multiCidrServices: false, optionalApis: [] },
    ...{ maxReadsInFlight: 400, maxWritesInFlight: 200 },
    ...{ encryptionConfigFile: undefined, encryptionReload: false },
  };
  for (const arg of args) {
    const equals = arg.indexOf("=");
    const name = (equals < 0 ? arg : arg.slice(0, equals)).replace(/^--/, "");
    const set = Object.hasOwn(known, name) ? known[name] : undefined;
    const isAudit = Object.hasOwn(auditFlags, name);
    if (!set && !isAudit) {
      throw refused(name, `is not known; these are: ${[...Object.keys(known), ...Object.keys(auditFlags)].join(", ")}`);
    }
    if (equals < 0) throw refused(name, "needs a value, as NAME=VALUE");
    const value = arg.slice(equals + 1);
    if (isAudit) audit.take(name, value, (why) => refused(name, why));
    else set?.(value, out);
  }
  for (const { gate, isOn, api } of neededApis) {
    if (isOn(out) && !out.optionalApis.includes(api)) {
      throw refused("feature-gates", `${gate} needs --kube-apiserver-arg runtime-config=${api}=true beside it`);
    }
  }
  return { ...out, audit: audit.result(refused) };
}

function seats(name: string, text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1 || value > mostSeats) {
    throw refused(name, `${JSON.stringify(text)} is not a whole number from 1 to ${mostSeats}`);
  }
  return value;
}

const refused = (name: string, why: string): AppError =>
  new AppError("APISERVER_ARGUMENT", `kube-apiserver-arg ${name}: ${why}`, { name });
