// Subresources that are verbs: POST to pods/binding, pods/eviction, serviceaccounts/token. Upstream counterpart: the
// BindingREST, EvictionREST and TokenREST of pkg/registry/core.
import { type Clock, rfc3339 } from "#base/clock.ts";
import type { Binding, Pod, ServiceAccount } from "#model/gen/core-v1.ts";
import type { PodDisruptionBudget } from "#model/gen/policy-v1.ts";
import { matchesLabelSelector } from "#model/label-selector.ts";
import type { UnknownObject } from "#model/object.ts";
import type { ResourceInfo } from "#model/resource-info.ts";
import {
  ApiError,
  badRequest,
  conflict,
  fieldInvalid,
  fieldRequired,
  invalid,
  methodNotAllowed,
  notFound,
} from "#model/status.ts";
import type { AdmissionRequest } from "../admission/plugin.ts";
import type { ObjectReference, TokenIssuer } from "../authn/token-issuer.ts";
import { checkPreconditions, type DeleteOptions } from "../registry/deletion.ts";
import type { Registry, Resource } from "../registry/registry.ts";
import { bindPod } from "../registry/strategies/pods.ts";
import type { Bodies } from "./bodies.ts";
import type { RequestInfo } from "./request-info.ts";
import type { HandlerRequest, Result } from "./result.ts";
import { writeContext } from "./write-context.ts";

export interface ActionDeps {
  readonly clock: Clock;
  readonly registry: Registry;
  readonly bodies: Bodies;
  readonly resources: ReadonlyMap<string, Resource>;
  readonly tokenIssuer: TokenIssuer | undefined;
}

type Action = (deps: ActionDeps, info: RequestInfo, request: HandlerRequest) => Promise<Result>;

/** Shapes of the bodies; not resources of their own. */
const shape = (group: string, version: string, kind: string, type: string): ResourceInfo => ({
  group,
  version,
  kind,
  plural: kind.toLowerCase(),
  singular: kind.toLowerCase(),
  shortNames: [],
  categories: [],
  namespaced: true,
  verbs: [],
  subresources: {},
  storageVersion: group === "" ? version : `${group}/${version}`,
  storageGroup: group,
  type,
});
const bindingShape = shape("", "v1", "Binding", "core/v1.Binding");
const evictionShape = shape("policy", "v1", "Eviction", "policy/v1.Eviction");
const tokenRequestShape = shape("authentication.k8s.io", "v1", "TokenRequest", "authentication/v1.TokenRequest");

const success: UnknownObject = { kind: "Status", apiVersion: "v1", metadata: {}, status: "Success" };
const done = (): Result => ({ type: "object", status: 201, object: { ...success, code: 201 } });

/** By `resource/subresource`; POST only. */
export const actions: Readonly<Record<string, Action>> = {
  "pods/binding": (deps, info, request) => bind(deps, info, info.name, request),
  "bindings/": (deps, info, request) => bind(deps, info, undefined, request),
  "pods/eviction": evict,
  "serviceaccounts/token": issueToken,
};

export function actionOf(info: RequestInfo): Action | undefined {
  if (info.group !== "") return undefined;
  const action = Object.hasOwn(actions, `${info.resource}/${info.subresource}`)
    ? actions[`${info.resource}/${info.subresource}`]
    : undefined;
  if (action && info.verb !== "create") {
    throw methodNotAllowed("the server does not allow this method on the requested resource");
  }
  return action;
}

function need(deps: ActionDeps, resource: string): Resource {
  const found = deps.resources.get(resource);
  if (!found) throw notFound({ group: "", resource }, "");
  return found;
}

async function bind(
  deps: ActionDeps,
  info: RequestInfo,
  pod: string | undefined,
  request: HandlerRequest,
): Promise<Result> {
  const binding = (await deps.bodies.read(request, bindingShape)) as unknown as Binding;
  const name = pod ?? binding.metadata.name ?? "";
  if ((binding.metadata.name ?? name) !== name) throw badRequest("name in URL does not match name in Binding object");
  const { target } = binding;
  const errors = [];
  if ((target?.kind ?? "") !== "" && target.kind !== "Node") {
    errors.push({
      ...fieldInvalid("target.kind", target.kind, ""),
      message: `Unsupported value: ${JSON.stringify(target.kind)}: supported values: "Node", "<empty>"`,
    });
  }
  if ((target?.name ?? "") === "") errors.push(fieldRequired("target.name"));
  if (errors.length > 0) throw invalid("", "Binding", name, errors);
  await deps.registry.update(
    need(deps, "pods"),
    info.namespace,
    name,
    {
      subresource: "binding",
      retries: 5,
      change: (current) => {
        const bound = bindPod(
          current as unknown as Pod,
          { node: target.name!, uid: binding.metadata.uid, annotations: binding.metadata.annotations },
          deps.clock.now(),
        );
        return structuredClone(bound) as unknown as UnknownObject;
      },
    },
    writeContext(request),
  );
  return done();
}

const admissionOf = (resource: Resource, info: RequestInfo, object: UnknownObject): AdmissionRequest => ({
  operation: "CREATE",
  resource: resource.info,
  subresource: info.subresource,
  namespace: info.namespace,
  name: info.name,
  object,
  oldObject: undefined,
});

/** A pod that has ended, or has not begun, counts for no budget. */
async function evict(deps: ActionDeps, info: RequestInfo, request: HandlerRequest): Promise<Result> {
  const pods = need(deps, "pods");
  const eviction = (await deps.bodies.read(request, evictionShape)) as UnknownObject & {
    deleteOptions?: DeleteOptions;
  };
  if ((eviction.metadata.name ?? info.name) !== info.name) {
    throw badRequest("name in URL does not match name in Eviction object");
  }
  const options = eviction.deleteOptions ?? {};
  const write = writeContext(request, options);
  await deps.registry.admit(admissionOf(pods, info, eviction), write);
  const item = await deps.registry.get(pods, info.namespace, info.name);
  const pod = pods.storage.decode(item) as unknown as Pod;
  const phase = pod.status?.phase;
  const counts = phase !== "Succeeded" && phase !== "Failed" && phase !== "Pending" && !pod.metadata.deletionTimestamp;
  if (counts) await takeFromBudget(deps, pod, info, request, write.dryRun);
  const marked = write.dryRun ? options : await noteDisruption(deps, pods, info, options, write);
  await deps.registry.delete(pods, info.namespace, info.name, marked, write);
  return done();
}

/** Says on the pod why it goes: its owner may not want to count that as a failure. Returns the options for what it is now. */
async function noteDisruption(
  deps: ActionDeps,
  pods: Resource,
  info: RequestInfo,
  options: DeleteOptions,
  write: ReturnType<typeof writeContext>,
): Promise<DeleteOptions> {
  const { preconditions } = options;
  const { item } = await deps.registry.update(
    pods,
    info.namespace,
    info.name,
    {
      subresource: "status",
      retries: 5,
      change: (current) => {
        checkPreconditions(pods.about, info.name, current!, preconditions);
        const { status = {} } = current as unknown as Pod;
        const condition = {
          type: "DisruptionTarget",
          status: "True",
          reason: "EvictionByEvictionAPI",
          message: "Eviction API: evicting",
          lastTransitionTime: rfc3339(deps.clock.now()),
        };
        const others = (status.conditions ?? []).filter((one) => one.type !== condition.type);
        const metadata = { ...current!.metadata };
        return { ...current!, metadata, status: { ...status, conditions: [...others, condition] } };
      },
    },
    write,
  );
  if (preconditions?.resourceVersion === undefined) return options;
  const { resourceVersion = "" } = pods.storage.decode(item).metadata;
  return { ...options, preconditions: { ...preconditions, resourceVersion } };
}

async function takeFromBudget(
  deps: ActionDeps,
  pod: Pod,
  info: RequestInfo,
  request: HandlerRequest,
  dryRun: boolean,
): Promise<void> {
  const budgets = deps.resources.get("poddisruptionbudgets.policy");
  if (!budgets) return;
  const page = await budgets.storage.list(info.namespace);
  const matching = page.items
    .map((item) => budgets.storage.decode(item) as unknown as PodDisruptionBudget)
    .filter((budget) => matchesLabelSelector(budget.spec.selector, pod.metadata.labels));
  if (matching.length === 0) return;
  if (matching.length > 1) {
    throw new ApiError(
      500,
      "",
      "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
    );
  }
  const budget = matching[0]!;
  if (mayGoUnhealthy(budget, pod)) return;
  const name = budget.metadata.name ?? "";
  await deps.registry.update(
    budgets,
    info.namespace,
    name,
    {
      subresource: "status",
      retries: 5,
      change: (current) => {
        const next = structuredClone(current!) as unknown as PodDisruptionBudget;
        const status = next.status;
        const behind = (status?.observedGeneration ?? 0) < (next.metadata.generation ?? 0);
        if (!status || behind || (status.disruptionsAllowed ?? 0) <= 0) {
          const why = behind
            ? `The disruption budget ${name} is still being processed by the server.`
            : `The disruption budget ${name} needs ${status?.desiredHealthy ?? 0} healthy pods and has ${status?.currentHealthy ?? 0} currently`;
          throw new ApiError(
            429,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
            {
              causes: [{ reason: "DisruptionBudget", message: why }],
              ...(behind ? { retryAfterSeconds: 10 } : {}),
            },
          );
        }
        status.disruptionsAllowed -= 1;
        status.disruptedPods = { ...status.disruptedPods, [info.name]: rfc3339(deps.clock.now()) };
        return next as unknown as UnknownObject;
      },
    },
    { user: request.user, dryRun, warn: (message) => request.warn(message) },
  );
}

/** Pods that are not ready and that the budget does not count on: they may go without taking from it. */
function mayGoUnhealthy({ spec, status }: PodDisruptionBudget, pod: Pod): boolean {
  const isReady = pod.status?.conditions?.some((one) => one.type === "Ready" && one.status === "True") === true;
  if (isReady) return false;
  if (spec.unhealthyPodEvictionPolicy === "AlwaysAllow") return true;
  const desired = status?.desiredHealthy ?? 0;
  return desired > 0 && (status?.currentHealthy ?? 0) >= desired;
}

async function issueToken(deps: ActionDeps, info: RequestInfo, request: HandlerRequest): Promise<Result> {
  const { tokenIssuer } = deps;
  if (!tokenIssuer) throw methodNotAllowed("this server issues no tokens");
  const accounts = need(deps, "serviceaccounts");
  const account = accounts.storage.decode(
    await deps.registry.get(accounts, info.namespace, info.name),
  ) as unknown as ServiceAccount;
  const body = (await deps.bodies.read(request, tokenRequestShape)) as UnknownObject & { spec?: TokenRequestSpec };
  const spec = body.spec ?? {};
  const seconds = spec.expirationSeconds ?? 3600;
  const errors = [];
  if (seconds < 600)
    errors.push(fieldInvalid("spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"));
  if (seconds > 2 ** 32)
    errors.push(fieldInvalid("spec.expirationSeconds", seconds, "may not specify a duration larger than 2^32 seconds"));
  if (errors.length > 0) throw invalid("authentication.k8s.io", "TokenRequest", "", errors);
  await deps.registry.admit(admissionOf(accounts, info, body), writeContext(request));
  const bound = await boundObject(deps, info, account, spec.boundObjectRef);
  const issued = tokenIssuer.issue({
    namespace: info.namespace,
    serviceAccount: { name: info.name, uid: account.metadata.uid ?? "" },
    audiences: spec.audiences ?? [],
    expirationSeconds: seconds,
    ...bound,
  });
  request.audit?.annotate("authentication.kubernetes.io/issued-credential-id", `JTI=${issued.id}`);
  return {
    type: "object",
    status: 201,
    object: {
      kind: "TokenRequest",
      apiVersion: "authentication.k8s.io/v1",
      metadata: {
        name: info.name,
        namespace: info.namespace,
        creationTimestamp: rfc3339(deps.clock.now()),
      },
      spec: { ...spec, audiences: issued.audiences, expirationSeconds: seconds },
      status: { token: issued.token, expirationTimestamp: rfc3339(issued.expirationMs) },
    },
  };
}

interface TokenRequestSpec {
  audiences?: string[];
  expirationSeconds?: number;
  boundObjectRef?: { kind?: string; apiVersion?: string; name?: string; uid?: string };
}

async function boundObject(
  deps: ActionDeps,
  info: RequestInfo,
  account: ServiceAccount,
  ref: TokenRequestSpec["boundObjectRef"],
): Promise<{ pod?: ObjectReference; node?: ObjectReference; secret?: ObjectReference }> {
  if (!ref) return {};
  const about = { group: "", resource: "serviceaccounts/token" };
  const resource =
    ref.kind === "Pod" ? "pods" : ref.kind === "Secret" ? "secrets" : ref.kind === "Node" ? "nodes" : undefined;
  if (!resource || (ref.apiVersion ?? "v1") !== "v1") {
    throw badRequest(`cannot bind token for serviceaccount "${info.name}" to type ${ref.kind ?? ""}`);
  }
  const store = need(deps, resource);
  const object: UnknownObject = store.storage.decode(
    await deps.registry.get(store, resource === "nodes" ? "" : info.namespace, ref.name ?? ""),
  );
  const uid = object.metadata.uid ?? "";
  if (ref.uid !== undefined && ref.uid !== "" && ref.uid !== uid) {
    throw conflict(
      about,
      info.name,
      `the UID in the bound object reference (${ref.uid}) does not match the UID in record. The object might have been deleted and then recreated`,
    );
  }
  const found = { name: ref.name ?? "", uid };
  if (resource === "secrets") return { secret: found };
  if (resource === "nodes") return { node: found };
  const pod = object as unknown as Pod;
  if ((pod.spec.serviceAccountName ?? "") !== account.metadata.name) {
    throw badRequest(
      `cannot bind token for serviceaccount "${info.name}" to pod running with different serviceaccount name.`,
    );
  }
  const nodeName = pod.spec.nodeName ?? "";
  if (nodeName === "") return { pod: found };
  const nodes = need(deps, "nodes");
  const node = await nodes.storage.get("", nodeName);
  return { pod: found, node: { name: nodeName, uid: node ? (nodes.storage.decode(node).metadata.uid ?? "") : "" } };
}
