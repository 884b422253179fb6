// The variable `authorizer` of policies and match conditions: may the one who asks, or a service account, do something
// else as well? Questions go to a function that answers or throws; what it throws ends the evaluation, so that whoever has
// to wait for an answer can evaluate again when it is there. Upstream counterpart: apiserver/pkg/cel/library/authz.go.
import { dns1123Label, dns1123Subdomain } from "../validation/names.ts";
import type { FunctionTable } from "./functions.ts";
import { type CallCost, type Declaration, type Overload, tableOf } from "./overloads.ts";
import { type CelType, objectType, parseType } from "./types.ts";
import { Failure, MapValue, Opaque, type Value } from "./values.ts";

export interface ResourceQuestion {
  readonly group: string;
  readonly resource: string;
  readonly subresource: string;
  readonly namespace: string;
  readonly name: string;
}
export interface Question {
  /** Undefined: who made the request. */
  readonly serviceAccount: { readonly namespace: string; readonly name: string } | undefined;
  readonly verb: string;
  readonly about: ResourceQuestion | { readonly path: string };
}
export interface Answer {
  readonly allowed: boolean;
  readonly reason: string;
  /** The question could not be answered. */
  readonly error?: string;
}
export type Ask = (question: Question) => Answer;

/** The variable; `requestResource` is what the request itself is about. */
export class AuthorizerValue extends MapValue {
  readonly size = 1;
  readonly ask: Ask;
  readonly serviceAccount: Question["serviceAccount"];
  readonly #requestResource: ResourceQuestion | undefined;
  constructor(ask: Ask, requestResource?: ResourceQuestion, serviceAccount?: Question["serviceAccount"]) {
    super();
    this.ask = ask;
    this.#requestResource = requestResource;
    this.serviceAccount = serviceAccount;
  }
  find(key: Value): Value | undefined {
    return key === requestResource && this.#requestResource
      ? new ResourceCheck(this, this.#requestResource)
      : undefined;
  }
  keys(): Value[] {
    return [requestResource];
  }
}
const requestResource = "requestResource";

const prefix = "kubernetes.authorization.";
/** Each is itself only: they are made to be asked, not compared. */
abstract class Part extends Opaque {
  equals(other: Opaque): boolean {
    return other === this;
  }
}
class PathCheck extends Part {
  readonly typeName = `${prefix}PathCheck`;
  readonly authorizer: AuthorizerValue;
  readonly path: string;
  constructor(authorizer: AuthorizerValue, path: string) {
    super();
    this.authorizer = authorizer;
    this.path = path;
  }
}
class GroupCheck extends Part {
  readonly typeName = `${prefix}GroupCheck`;
  readonly authorizer: AuthorizerValue;
  readonly group: string;
  constructor(authorizer: AuthorizerValue, group: string) {
    super();
    this.authorizer = authorizer;
    this.group = group;
  }
}
class ResourceCheck extends Part {
  readonly typeName = `${prefix}ResourceCheck`;
  readonly authorizer: AuthorizerValue;
  readonly about: ResourceQuestion;
  constructor(authorizer: AuthorizerValue, about: ResourceQuestion) {
    super();
    this.authorizer = authorizer;
    this.about = about;
  }
  with(more: Partial<ResourceQuestion>): ResourceCheck {
    return new ResourceCheck(this.authorizer, { ...this.about, ...more });
  }
}
class Decision extends Part {
  readonly typeName = `${prefix}Decision`;
  readonly answer: Answer;
  constructor(answer: Answer) {
    super();
    this.answer = answer;
  }
}

const decide = (authorizer: AuthorizerValue, verb: Value, about: Question["about"]): Decision =>
  new Decision(authorizer.ask({ serviceAccount: authorizer.serviceAccount, verb: verb as string, about }));

/** Upstream's: three questions are more than one call may cost. */
const questionCost: CallCost = () => 350_000;

const library: Declaration[] = [
  [
    "path",
    "authorizer_path: Authorizer.(string) -> PathCheck",
    (_run, of, path) => {
      if (path === "") throw new Failure("path must not be empty");
      return new PathCheck(of as AuthorizerValue, path as string);
    },
  ],
  [
    "group",
    "authorizer_group: Authorizer.(string) -> GroupCheck",
    (_run, of, group) => new GroupCheck(of as AuthorizerValue, group as string),
  ],
  [
    "serviceAccount",
    "authorizer_serviceaccount: Authorizer.(string, string) -> Authorizer",
    (_run, of, namespace, name) => {
      if (dns1123Subdomain(name as string).length > 0) throw new Failure("Invalid service account name");
      if (dns1123Label(namespace as string).length > 0) throw new Failure("Invalid service account namespace");
      const account = { namespace: namespace as string, name: name as string };
      return new AuthorizerValue((of as AuthorizerValue).ask, undefined, account);
    },
  ],
  [
    "resource",
    "groupcheck_resource: GroupCheck.(string) -> ResourceCheck",
    (_run, of, resource) => {
      const { authorizer, group } = of as GroupCheck;
      const rest = { subresource: "", namespace: "", name: "" };
      return new ResourceCheck(authorizer, { group, resource: resource as string, ...rest });
    },
  ],
  ...(["subresource", "namespace", "name"] as const).map(
    (field): Declaration => [
      field,
      `resourcecheck_${field}: ResourceCheck.(string) -> ResourceCheck`,
      (_run, of, value) => (of as ResourceCheck).with({ [field]: value as string }),
    ],
  ),
  // Authorisers of this server do not look at what is selected, so it changes no answer.
  ...(["fieldSelector", "labelSelector"] as const).map(
    (name): Declaration => [
      name,
      `resourcecheck_${name.toLowerCase()}: ResourceCheck.(string) -> ResourceCheck`,
      (_run, of) => of,
    ],
  ),
  [
    "check",
    ["pathcheck_check: PathCheck.(string) -> Decision", "resourcecheck_check: ResourceCheck.(string) -> Decision"],
    (_run, of, verb) => {
      if (of instanceof PathCheck) return decide(of.authorizer, verb, { path: of.path });
      const { authorizer, about } = of as ResourceCheck;
      return decide(authorizer, verb, about);
    },
    questionCost,
  ],
  ["allowed", "decision_allowed: Decision.() -> bool", (_run, of) => (of as Decision).answer.allowed],
  ["reason", "decision_reason: Decision.() -> string", (_run, of) => (of as Decision).answer.reason],
  ["errored", "decision_errored: Decision.() -> bool", (_run, of) => (of as Decision).answer.error !== undefined],
  ["error", "decision_error: Decision.() -> string", (_run, of) => (of as Decision).answer.error ?? ""],
];

const typeOf = (name: string): CelType => parseType(`${prefix}${name}`);
const authorizerType = objectType(`${prefix}Authorizer`, new Map([[requestResource, typeOf("ResourceCheck")]]));
const named: ReadonlyMap<string, CelType> = new Map([
  ["Authorizer", authorizerType],
  ...["PathCheck", "GroupCheck", "ResourceCheck", "Decision"].map((name) => [name, typeOf(name)] as const),
]);
const withTypes = (overload: Overload): Overload => ({
  ...overload,
  params: overload.params.map((type) => named.get(type.name) ?? type),
  result: named.get(overload.result.name) ?? overload.result,
});

/** What environments with the variable have. */
export const authorizerVariable = ["authorizer", authorizerType] as const;
export const authorizerFunctions: FunctionTable = new Map(
  [...tableOf(library)].map(([name, overloads]) => [name, overloads.map(withTypes)]),
);
